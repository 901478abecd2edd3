"""The base of every group of settings: typed, range-checked, immutable, no unknown key."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Values are checked when the object is made; a wrong one raises pydantic's error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
