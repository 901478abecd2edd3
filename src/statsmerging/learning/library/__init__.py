"""The library: from experts and unlabeled inputs to a merged model, in one call, without files."""
