"""The page of a report as a reader uses it, in headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from statsmerging.report.drawings import drawings
from statsmerging.report.figures.charts import chart
from statsmerging.report.figures.style import spec_of
from statsmerging.report.groups import runs_by_setting
from statsmerging.report.page.html import report_page
from tests.report.conftest import WriteRun

#: Titles of maps begin like this.
MAPS = (
    "Coefficients · ",
    "Mean coefficients of directions · ",
    "Coefficients of singular directions",
    "Cosines",
)

#: Width of a phone in CSS pixels.
PHONE = 375


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all tests; nothing is ever downloaded for it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture
def page(browser: Any, sweep_runs: Path, tmp_path: Path) -> Any:
    """The browser at a fresh page without figures, 1280 pixels wide, light."""
    return _opened(browser, tmp_path, report_page(runs_by_setting(sweep_runs), sweep_runs, {}))


def _opened(browser: Any, folder: Path, text: str) -> Any:
    path = folder / "report.html"
    path.write_text(text)
    _show(browser, width=1280, scheme="light")
    browser.get(path.as_uri())
    return browser


def _show(browser: Any, width: int, scheme: str) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    # Where nothing moves, a click meets what it aims at.
    wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in wishes.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def find(page: Any, selector: str) -> Any:
    return page.find_element("css selector", selector)


def texts(page: Any, selector: str) -> list[str]:
    return [item.text for item in page.find_elements("css selector", selector)]


def choose(page: Any, label: str, option: str) -> None:
    """Type an option's beginning into the control that a reader knows by its label."""
    field = f"//label[contains(@class, 'field')][span[text()='{label}']]"
    page.find_element("xpath", f"{field}/select").send_keys(option)


def column(page: Any, heading: str) -> list[str]:
    """Texts of a column of the overview, from top to bottom."""
    headings = texts(page, "#overview-table thead th")
    return texts(page, f"#overview-table tbody tr > :nth-child({headings.index(heading) + 1})")


def test_it_loads_alone_and_without_complaint(
    browser: Any, sweep_runs: Path, tmp_path: Path
) -> None:
    page = _with_figures(browser, sweep_runs, tmp_path)
    find(page, "a[href='#figures']").click()
    _wait(page, "svg.marks")
    assert find(page, "figcaption").text == "Accuracy on every task · toy · vit · labels: hard"
    assert "The free" in find(page, ".plot").text
    choose(page, "figure", "toy · vit · labels: soft")
    assert find(page, "figcaption").text.endswith("labels: soft")
    assert page.get_log("browser") == []
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert not page.find_elements("css selector", "main b")
    unscoped = "th:not([scope]), table:not(:has(> caption))"
    assert not page.find_elements("css selector", unscoped)


def _with_figures(browser: Any, runs: Path, folder: Path) -> Any:
    """The browser at the page of these runs with all their charts."""
    groups = runs_by_setting(runs)
    specs = {drawing.title: spec_of(chart(drawing)) for drawing in drawings(groups)}
    return _opened(browser, folder, report_page(groups, runs, specs))


def _wait(page: Any, selector: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, 60).until(lambda _: page.find_elements("css selector", selector))


def test_how_far_weights_move_stands_after_the_tables(
    browser: Any, singular_run: Path, tmp_path: Path
) -> None:
    page = _opened(browser, tmp_path, report_page(runs_by_setting(singular_run), singular_run, {}))
    assert texts(page, "#setting-tables h3") == [
        "toy on vit",
        "Movement of the weights: toy · vit",
    ]
    cells = texts(page, "#setting-tables article:last-child tbody tr > *")
    assert cells[:4] == ["The free", "1.500", "0.125", "4.000"]
    assert page.get_log("browser") == []


@pytest.mark.parametrize("run", ["learned_run", "singular_run"])
def test_every_kind_of_chart_is_drawn_at_every_width(
    browser: Any, run: str, request: pytest.FixtureRequest, corrupted_runs: Path, tmp_path: Path
) -> None:
    """The script of the charts makes no script, which the page forbids; nothing is cut off."""
    del corrupted_runs  # in the same folder as the other
    page = _with_figures(browser, request.getfixturevalue(run), tmp_path)
    for width in (1280, PHONE):
        _show(page, width, scheme="dark")
        page.refresh()
        find(page, "a[href='#figures']").click()
        _wait(page, ".marks")
        titles = page.execute_script(
            "return [...document.querySelectorAll('#figure-shown option')].map(e => e.value)"
        )
        for _ in titles:
            page.execute_script("document.querySelector('.plot').replaceChildren()")
            page.find_element("xpath", "//button[.='Next']").click()
            _wait(page, ".plot .marks")
            page.execute_async_script("setTimeout(arguments[0], 300)")
            drawn, room = page.execute_script(
                "const plot = document.querySelector('.plot');"
                "return [plot.querySelector('.marks').getBoundingClientRect().width,"
                " plot.clientWidth]"
            )
            caption = find(page, "figcaption").text
            # Maps are scrolled where there is no room for them.
            if not caption.startswith(MAPS):
                assert drawn == pytest.approx(room, abs=5), caption
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.get_log("browser") == []


def test_a_mark_tells_its_numbers_and_a_legend_picks(
    browser: Any, sweep_runs: Path, tmp_path: Path
) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    page = _with_figures(browser, sweep_runs, tmp_path)
    find(page, "a[href='#figures']").click()
    _wait(page, "svg.marks")
    page.execute_async_script("setTimeout(arguments[0], 500)")
    marks = (
        "//*[name()='path'][contains(@aria-label, 'The ties') and contains(@aria-label, 'mnist')]"
    )
    mark = page.find_elements("xpath", marks)[-1]
    ActionChains(page).move_to_element(mark).perform()
    _wait(page, "#vg-tooltip-element.visible")
    assert "55.00" in find(page, "#vg-tooltip-element").text
    entry = page.find_element("xpath", "//*[name()='text'][.='The free']")
    ActionChains(page).move_to_element(entry).click().perform()
    page.execute_async_script("setTimeout(arguments[0], 300)")
    faint = {float(item.get_attribute("opacity")) for item in page.find_elements("xpath", marks)}
    assert faint == {0.1}


def test_a_chart_has_the_colours_of_the_page(
    browser: Any, sweep_runs: Path, tmp_path: Path
) -> None:
    page = _with_figures(browser, sweep_runs, tmp_path)
    find(page, "a[href='#figures']").click()
    _wait(page, "svg.marks")

    def text_colour() -> str:
        page.execute_async_script("setTimeout(arguments[0], 500)")
        label = page.find_element("xpath", "//*[name()='text'][.='mnist']")
        return str(label.get_attribute("fill"))

    def page_colour() -> str:
        script = "return getComputedStyle(document.querySelector('.plot')).color"
        return str(page.execute_script(script))

    light = text_colour()
    assert light == page_colour()
    find(page, "#theme").click()
    dark = text_colour()
    assert dark == page_colour() != light
    page.execute_script("localStorage.clear()")


def test_headings_sort_numbers_as_numbers(page: Any) -> None:
    assert find(page, "#row-count").text == "8 of 12 rows"
    heading = page.find_element("xpath", "//*[@id='overview-table']//th[.='average']")
    orders = []
    for _ in range(3):
        heading.find_element("css selector", "button").click()
        orders.append((heading.get_attribute("aria-sort"), column(page, "average")))
    averages = ["72.0", "70.0", *["50.0"] * 4, "9.5", "9.0"]
    assert orders[0] == ("descending", averages)
    assert orders[1] == ("ascending", averages[::-1])
    assert orders[2][0] == "none"
    assert orders[2][1] != averages


def test_rows_are_sorted_among_their_own_kind(page: Any) -> None:
    table = "//article[h3='labels: hard']"
    button = page.find_element("xpath", f"{table}//th[.='average']/button")
    for methods in (["The ties", "The free"], ["The free", "The ties"]):
        button.click()
        rows = page.find_elements("xpath", f"{table}//tbody/tr/th")
        # The bound stays above; 9.2 is less than 50.0.
        assert [row.text for row in rows] == ["Individual", *methods]


def test_filters_leave_the_rows_they_name(page: Any) -> None:
    choose(page, "labels.kind", "soft")
    choose(page, "method", "The free")
    assert column(page, "labels") == ["soft", "soft"]
    assert find(page, "#row-count").text == "2 of 12 rows"
    # The best of what is shown is bold.
    assert texts(page, "#overview-table tbody .best") == ["72.0", "80.0"]
    find(page, "#filters input[type=search]").send_keys("soft-0")
    assert column(page, "run") == ["soft-0"]
    find(page, "#filters button[type=reset]").click()
    page.execute_async_script("setTimeout(arguments[0], 50)")
    assert find(page, "#row-count").text == "8 of 12 rows"
    find(page, "#filters input[type=checkbox]").click()
    assert find(page, "#row-count").text == "12 of 12 rows"


def test_numbers_that_are_printed_alike_are_best_alike(
    browser: Any, write_run: WriteRun, tmp_path: Path
) -> None:
    for seed, average in enumerate([0.7201, 0.7204, 0.6]):
        runs = write_run(f"seed-{seed}", {"individual": 0.9, "free": average}, seed)
    page = _opened(browser, tmp_path, report_page(runs_by_setting(runs), runs, {}))
    assert texts(page, "#overview-table tbody .best:nth-child(3)") == ["72.0", "72.0"]


def test_the_first_run_is_compared_with_another_setting(page: Any) -> None:
    assert texts(page, ".configs tbody .differs th") == ["labels.kind"]


def test_two_runs_are_compared_key_by_key_and_task_by_task(page: Any) -> None:
    choose(page, "run A", "labels hard · seed 1")
    choose(page, "run B", "labels soft · seed 1")
    assert texts(page, ".configs tbody .differs th") == ["labels.kind"]
    assert texts(page, ".configs tbody .differs td") == ["hard", "soft"]
    changes = texts(page, ".differences tbody tr:last-child .change")
    assert changes == ["+62.5", "+62.5", "+62.5", "+69.4"]
    assert texts(page, ".differences tbody tr:last-child .from-to")[2] == "9.5 → 72.0"
    assert set(texts(page, ".differences .bound .change")) == {"0.0"}
    find(page, "#compare-choice button").click()
    assert texts(page, ".differences tbody tr:last-child .change")[0] == "−62.5"


def test_a_row_leads_to_its_run_with_all_that_made_it(page: Any) -> None:
    choose(page, "labels.kind", "soft")
    find(page, "#overview-table tbody a").click()
    _wait(page, "details.run[open]")
    details = find(page, "details.run[open]")
    assert "seed 0" in details.text
    assert texts(page, "details.run[open] > .notice.stamps") == ["Stamp tuned on labels"]
    commands = texts(page, "details.run[open] .command code")
    assert commands[0].startswith("statsmerging job=reproduce job.run=")
    assert commands[1] == "python run.py -m labels=hard,soft seed=0,1"
    assert "This job: labels.kind=soft, seed=0." in details.text
    assert "a processor" in details.text
    assert "with changes that no commit holds" in details.text
    config, packages = details.find_elements("css selector", ".folded summary")[:2]
    assert not find(page, "details.run[open] .yaml").is_displayed()
    config.click()
    packages.click()
    assert "kind: soft" in find(page, "details.run[open] .yaml").text
    assert find(page, "details.run[open] .packages").text.split() == ["torch", "2.15.0"]


def test_the_keyboard_reaches_every_control(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    find(page, "body").send_keys(Keys.TAB)
    assert page.switch_to.active_element.text == "Skip to the content"
    assert page.switch_to.active_element.value_of_css_property("outline-style") == "solid"
    reached = set()
    for _ in range(60):
        page.switch_to.active_element.send_keys(Keys.TAB)
        focused = page.switch_to.active_element
        reached.add((focused.tag_name, focused.get_attribute("type"), focused.text))
    kinds = {(name, kind) for name, kind, _ in reached}
    assert {("input", "search"), ("input", "checkbox"), ("select", "select-one")} <= kinds
    assert {("button", "button", "average"), ("button", "button", "Dark")} <= reached
    heading = page.find_element("xpath", "//*[@id='overview-table']//th[.='average']")
    heading.find_element("css selector", "button").send_keys(Keys.ENTER)
    assert heading.get_attribute("aria-sort") == "descending"


def test_lists_stand_as_the_command_line_takes_them(
    browser: Any, write_run: WriteRun, tmp_path: Path
) -> None:
    features = [["mean"], ["mean", "magnitude", "singular_values", "relative_norm"]]
    for number, names in enumerate(features):
        statistics = {"features": names}
        runs = write_run(f"{number}", {"individual": 0.9, "free": 0.6}, statistics=statistics)
    page = _opened(browser, tmp_path, report_page(runs_by_setting(runs), runs, {}))
    assert set(column(page, "features")) == {f"[{','.join(names)}]" for names in features}
    # All of a long one is to be seen, not only its beginning.
    cut = "return [...document.querySelectorAll('td')].some(e => e.scrollWidth > e.clientWidth)"
    assert not page.execute_script(cut)


def test_long_lists_fold(browser: Any, write_run: WriteRun, tmp_path: Path) -> None:
    for number in range(24):
        keys = {f"key_{place}": number % (place + 2) for place in range(6)}
        runs = write_run(f"run-{number}", {"individual": 0.9, "free": 0.6 + number / 100}, **keys)
    page = _opened(browser, tmp_path, report_page(runs_by_setting(runs), runs, {}))
    assert len(page.find_elements("css selector", "#overview-table tbody tr")) == 20
    assert len(texts(page, "#filters > .field > span")) == 5
    find(page, "#overview-table button.more").click()
    assert len(page.find_elements("css selector", "#overview-table tbody tr")) == 24
    assert not page.find_element("css selector", "#setting-tables details article").is_displayed()
    assert page.execute_script("return document.documentElement.scrollHeight") < 8000
    # A link still leads to a run in a folded list.
    page.find_elements("css selector", "#overview-table tbody a")[-1].click()
    _wait(page, "#run-list > .folded[open] > details.run[open]")
    _show(page, width=PHONE, scheme="light")
    assert page.execute_script("return document.documentElement.scrollWidth") == PHONE


def test_on_a_phone_the_first_screen_has_accuracies(page: Any) -> None:
    _show(page, width=PHONE, scheme="light")
    page.refresh()
    right, bottom = page.execute_script(
        "const box = document.querySelector('.ranking tbody strong').getBoundingClientRect();"
        "return [box.right, box.bottom]"
    )
    assert right <= PHONE
    assert bottom <= 800


def test_a_phone_scrolls_tables_not_the_page(page: Any) -> None:
    _show(page, width=PHONE, scheme="light")
    page.refresh()
    assert page.execute_script("return document.documentElement.scrollWidth") == PHONE
    script = (
        "return [...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)"
    )
    assert page.execute_script(script)


def test_dark_is_the_systems_choice_until_the_reader_chooses(page: Any) -> None:
    def brightness() -> int:
        colour = find(page, "body").value_of_css_property("background-color")
        return int(colour.partition("(")[2].split(",")[0])

    assert brightness() > 200
    _show(page, width=1280, scheme="dark")
    page.refresh()
    assert brightness() < 50
    button = find(page, "#theme")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert brightness() > 200
    page.refresh()
    assert brightness() > 200
    page.execute_script("localStorage.clear()")
