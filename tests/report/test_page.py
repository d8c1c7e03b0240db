"""The report as people get it: complete, self-contained, readable in both languages, on screen and on paper."""

import base64
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("jinja2", reason='needs jinja2: pip install "lineside[report]"')
pytest.importorskip("matplotlib", reason='needs matplotlib: pip install "lineside[report]"')
pytest.importorskip("polars", reason='needs polars: pip install "lineside[report]"')
pytest.importorskip("scipy", reason='needs scipy: pip install "lineside[report]"')

from report_samples import BEGIN, HOSTILE, sample_report

from inspection.report import page as page_module
from inspection.report.caveats import of_the_escapes
from inspection.report.contents import Caveat, Claim, HourRow, Report, RiseRow, Span, Tally
from inspection.report.control_charts import ROUGH_RULES, Known, p_chart
from inspection.report.nelson import ALL_RULES
from inspection.report.page import SECTIONS, render
from inspection.report.svg import canvas, shortened
from inspection.report.tables import tables
from inspection.report.wording import FOLDER, LANGUAGES, Language, Wording, percent_digits

CHROMIUM = "/usr/bin/chromium"
PANEL, PHONE = (1280, 800), (390, 844)
LIMIT_MS = 60_000
VOID = {"meta", "img", "br", "image", "rect", "path"}
TABLES = ("gallery", "page", "caveat", "why_not", "map", "not_covered", "quantity", "rule", "define", "claim", "unit")


class Seen(HTMLParser):
    """What a reader gets: tags with their attributes, the text that is shown, and whether every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def report() -> Report:
    """The small complete report."""
    return sample_report()


@pytest.fixture(scope="module")
def pages(report: Report) -> dict[Language, str]:
    """It as a page in each language."""
    return {language: render(report, language) for language in LANGUAGES}


@pytest.fixture(scope="module")
def empty(report: Report) -> Report:
    """A span without a record."""
    nothing = Claim(None, of=0, why_not="nothing_inspected")
    totals = replace(
        report.totals, tally=Tally(), simulated=0, serials=0, without_serial=0, serials_repeated=0, serials_used_twice=(),
        lots=0, first_pass_yield=nothing, final_yield=nothing, error_rate=nothing, reviewed=0, confirmed=0, false_calls=0,
        escapes=0, unsure=0, unreviewed_not_ok=0, late=0,
    )  # fmt: skip
    rows = [one.name for one in fields(report) if isinstance(getattr(report, one.name), tuple)]
    bare: dict[str, Any] = dict.fromkeys(rows, ())
    bare |= {"totals": totals, "first": None, "last": None, "span": Span(), "caveats": (Caveat("empty_span"),)}
    return replace(report, **bare)


def charts_of(html: str) -> list[str]:
    """The SVG pictures in a page."""
    return [base64.b64decode(found).decode() for found in re.findall(r"data:image/svg\+xml;base64,([^\"]*)", html)]


# ---- texts


def placed(language: Language) -> dict[tuple[str, str], list[str]]:
    """What is filled into each sentence of a language, by table and key."""
    tables = tomllib.loads((FOLDER / f"{language}.toml").read_text(encoding="utf-8"))
    return {
        (name, key): sorted(filter(None, (part[1] for part in Formatter().parse(text))))
        for name, table in tables.items()
        for key, text in table.items()
    }


def test_both_languages_have_the_same_sentences() -> None:
    """Every key stands in both files, with the same places to be filled."""
    english = placed("en")
    singular = {key: english.pop(key) for key in [*english] if key[1].endswith("_one")}
    assert english == placed("zh")
    assert all(set(names) <= set(english[table, key.removesuffix("_one")]) for (table, key), names in singular.items())
    assert set(TABLES) <= {table for table, _ in placed("en")}


def test_words_that_the_code_names_have_sentences() -> None:
    """Each caveat, reason and cause that the code names has its sentence, so that no reader meets a key."""
    folder = Path(page_module.__file__).parent
    code = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    wording = Wording("en", UTC)
    named = {"caveat": re.findall(r'[Cc]aveat\("(\w+)"', code), "why_not": re.findall(r'why_not="(\w+)"', code)}
    known = {key for table in ("why_not", "gallery", "map") for key in wording.words(table)}
    assert [] == [key for key in named["caveat"] if not wording.has("caveat", key)]
    assert [] == [key for key in named["why_not"] if key not in known]


def test_a_key_without_a_sentence_loses_no_fact() -> None:
    """An unknown word is shown as it is, with its values; a sentence whose values do not fit too."""
    wording = Wording("en", UTC)
    assert "not_heard_of (parts 12,345)" == wording.text("caveat", "not_heard_of", (("parts", 12345),))
    assert "few_parts (other 3)" == wording.text("caveat", "few_parts", (("other", 3),))


def test_one_of_a_thing_is_not_many() -> None:
    """Where English has a sentence for one, it is taken when the first count is 1."""
    assert "1 record is of" in Wording("en", UTC).text("caveat", "old_schema", (("records", 1), ("schemas", "2")))
    assert "12 records are" in Wording("en", UTC).text("caveat", "old_schema", (("records", 12), ("schemas", "2")))


def test_a_wide_interval_stands_in_place_of_the_number(report: Report) -> None:
    """An escape rate of 0.5 to 94 % is no rate: the interval is the headline, with a word that it is no number yet."""
    wide = replace(report.escapes[0], observed=Claim(0.6217, 0.0053, 0.9361, 19))
    text = Seen(render(replace(report, escapes=(wide,)), "en")).text
    assert "0.53% \u2013 93.61%" in text
    assert "no one number yet" in text
    assert "62.17%" not in text
    (caveat,) = of_the_escapes([wide, report.escapes[0]])
    assert ("escapes_vague", 1, 20) == (caveat.key, dict(caveat.values)["escapes"], dict(caveat.values)["decided"])


def test_the_worst_come_first(report: Report) -> None:
    """Of many hours and lots those that are shown begin with the worst."""
    hours = [HourRow(BEGIN + timedelta(hours=at), Tally(100 - at % 7, at % 7), 0) for at in range(60)]
    lots = [replace(report.lots[0], name=f"L{at:02d}", first_pass_yield=Claim(1 - at / 100)) for at in range(60)]
    html = render(replace(report, hours=tuple(hours), lots=tuple(lots)), "en")
    shown = re.findall(r">(L\d\d)<", html)
    assert [f"L{at:02d}" for at in range(59, 28, -1)] == shown
    section = html[html.index('id="trend"') : html.index('id="control"')]
    cells = r'class="time">[^<]*</th><td class="n">100</td><td class="n">\d+</td><td class="n">(\d+)<'
    bad = [int(cell) for cell in re.findall(cells, section)]
    assert [6] * 8 == bad[:8]
    assert sorted(bad, reverse=True) == bad


def test_each_chart_says_its_rules(report: Report) -> None:
    """Rules and the share of signals that chance gives are those of the chart, not of all eight rules."""
    sizes = report.charts[0].sizes
    judged = p_chart([3] * len(sizes), sizes, baseline=Known(0.05, 1.0))
    few, every = (
        [replace(view, chart=replace(judged, rules=rules)) for view in report.charts[:1]]
        for rules in (ROUGH_RULES, ALL_RULES)
    )
    texts = [Seen(render(replace(report, charts=tuple(charts)), "en")).text for charts in (few, every)]
    assert ["Rules used here: 1, 2, 3, 4." in text for text in texts] == [True, False]
    assert ["1.40%" in text for text in texts] == [True, False]
    assert ["2.30%" in text for text in texts] == [False, True]
    assert ["rule 8" in text for text in texts] == [False, True]


def test_verdicts_are_in_the_readers_language(pages: dict[Language, str]) -> None:
    """Chinese pages call verdicts, reviews and goldens as the station's pages do."""
    text = Seen(pages["zh"]).text
    assert all(word in text for word in ("合格", "不合格", "待复判", "错误", "复判", "标准图"))
    assert not any(word in text for word in ("复核", "标准模板", "REVIEW", "ERROR"))


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0, "0"),
        (1.0, "100"),
        (0.5, "50.00"),
        (0.00012, "0.012"),
        (0.999996, "99.9996"),
        (1e-6, "0.00010"),
        (0.9949, "99.49"),
    ],
)
def test_shares_are_never_rounded_to_nothing_or_all(share: float, shown: str) -> None:
    """What is not quite 0 or 1 keeps the digits that say so."""
    assert shown == percent_digits(share)


def test_times_are_local_with_their_zone_named() -> None:
    """A moment is shown in the station's time, and the page says which that is."""
    wording = Wording("en", timezone(timedelta(hours=-3, minutes=-30)))
    assert "2026-11-23 01:30:00" == wording.when(datetime(2026, 11, 23, 5, tzinfo=UTC))
    assert "UTC-03:30" == wording.zone_name(datetime(2026, 11, 23, tzinfo=UTC))
    assert "2026-11-23 01:30:00" == wording.value("2026-11-23T05:00:00+00:00")


# ---- the page


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_number_is_on_the_page(pages: dict[Language, str], report: Report, language: Language) -> None:
    """Totals, yields, reasons, classes, hours, stages, versions, rates and reviews: each with its digits, in both languages."""
    text, wording = Seen(pages[language]).text, Wording(language, report.zone)
    missing = [
        shown for shown in wanted(report, wording) if not re.search(rf"(?<![\d.,]){re.escape(shown)}(?![\d])", text)
    ]
    assert [] == missing


def wanted(report: Report, wording: Wording) -> Iterator[str]:
    """Every number of a report as it is to be read."""
    totals = report.totals
    for name in ("simulated", "serials", "without_serial", "serials_repeated", "lots", "reviewed", "confirmed",
                 "false_calls", "escapes", "unsure", "unreviewed_not_ok", "late"):  # fmt: skip
        yield wording.count(getattr(totals, name))
    tallies = [totals.tally, *(row.tally for row in (*report.hours, *report.shifts, *report.lots, *report.versions))]
    for tally in tallies:
        yield from (wording.count(n) for n in (tally.parts, tally.ok, tally.ng, tally.review, tally.error))
    claims = [totals.first_pass_yield, totals.final_yield, totals.error_rate]
    claims += [row.first_pass_yield for row in (*report.shifts, *report.lots)]
    claims += [row.rate for row in report.false_calls] + [view.observed for view in report.escapes]
    for claim in claims:
        yield from (wording.percent(value) for value in (claim.value, claim.low, claim.high) if value is not None)
    yield from (wording.count(row.parts) for row in report.reasons)
    for row in report.pareto:
        yield from (
            wording.count(row.findings),
            wording.count(row.parts),
            wording.percent(row.share),
            wording.percent(row.cumulative),
        )
    for stage in report.stages:
        yield from (f"{value:,.1f}" for value in (stage.median_ms, stage.p95_ms, stage.p99_ms, stage.max_ms))
    for call in report.false_calls:
        yield wording.count(call.false_calls)
        yield from [wording.count(call.of)] if call.of is not None else []
    for view in report.escapes:
        yield from (
            wording.count(view.reviewed_ok),
            wording.count(view.escapes),
            wording.percent(view.promised_bound or 0),
        )
    yield from (wording.count(change.rowid) for change in report.changes)
    yield from (wording.count(one.placed) for one in report.maps if one.placed)
    yield from (wording.number(item.score) for item in report.gallery)
    yield wording.count(report.snapshot_rowid)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_needs_nothing_from_outside(pages: dict[Language, str], language: Language) -> None:
    """No script, no style sheet, no address: pictures are in the page, links stay in it and lead somewhere."""
    html = pages[language]
    seen = Seen(html)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in seen.tags}
    assert "url(" not in html
    assert "@import" not in html
    ids = [given["id"] for _, given in seen.tags if given.get("id")]
    assert len(ids) == len(set(ids))
    for tag, given in seen.tags:
        assert not any(name.startswith("on") for name in given)
        for name in ("src", "href"):
            link = given.get(name) or ""
            assert name not in given or (link[1:] in ids if tag == "a" else link.startswith("data:image/"))
    assert all(given.get("alt") for tag, given in seen.tags if tag == "img")
    assert all(given.get("aria-label") or given.get("aria-hidden") for tag, given in seen.tags if tag == "svg")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_caveats_come_first(pages: dict[Language, str], report: Report, language: Language) -> None:
    """What the report cannot claim stands before any number, each with its sentence."""
    html = pages[language]
    places = [html.index(f'<section id="{name}"') for name in SECTIONS]
    assert sorted(places) == places
    assert "limits" == SECTIONS[0]
    wording, text = Wording(language, report.zone), Seen(html).text
    for caveat in report.caveats:
        assert wording.has("caveat", caveat.key)
        assert wording.text("caveat", caveat.key, caveat.values) in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_reason_stands_where_there_is_no_number(
    pages: dict[Language, str], report: Report, language: Language
) -> None:
    """Each claim without a value, chart without limits and missing picture says why, in the reader's language."""
    wording, text = Wording(language, report.zone), Seen(pages[language]).text
    said = [wording.text("why_not", row.rate.why_not) for row in report.false_calls if row.rate.value is None]
    said += [
        wording.text("why_not", lot.first_pass_yield.why_not)
        for lot in report.lots
        if lot.first_pass_yield.value is None
    ]
    said += [
        wording.text("why_not", view.chart.why_not, view.chart.values) for view in report.charts if view.chart.why_not
    ]
    said += [wording.text("gallery", item.why_not) for item in report.gallery if item.why_not]
    said += [wording.text("map", view.why_not) for view in report.maps if view.why_not]
    assert len(said) >= 7
    assert [] == [reason for reason in said if reason not in text]
    assert text.count(wording.text("page", "no_number")) == 2


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_empty_report_claims_nothing(empty: Report, language: Language) -> None:
    """A span without a record gives a page that says so in every section and shows no share."""
    html = render(empty, language)
    seen, wording = Seen(html), Wording(language, empty.zone)
    assert wording.text("caveat", "empty_span") in seen.text
    assert all(f'<section id="{name}"' in html for name in SECTIONS)
    assert seen.text.count(wording.text("page", "no_number")) == 3
    assert [] == charts_of(html)


def test_a_camera_that_had_changed_is_named_at_the_top(report: Report) -> None:
    """Bad hours that are put down to a camera are told before the yields, with what had changed."""
    rise = RiseRow(BEGIN, BEGIN + timedelta(hours=2), 2, "camera", (("top", "sharpness"),))
    html = render(replace(report, rises=(rise, replace(rise, cause="parts", because=()))), "en")
    limits = html[html.index('id="limits"') : html.index('id="totals"')]
    assert "top focus (sharpness)" in limits
    assert "the camera: top focus (sharpness) had changed" in Seen(html).text
    assert "the parts: no camera had changed" in Seen(html).text


def test_simulated_records_are_said_to_be_simulated(report: Report) -> None:
    """A report of simulated cameras says on top that it is no production."""
    html = render(replace(report, simulated=True), "en")
    assert html.index("not production") < html.index('id="limits"')


@pytest.mark.parametrize("language", LANGUAGES)
def test_files_named_on_the_page_are_written(report: Report, language: Language) -> None:
    """A table that the page points to for what it leaves out is one of those beside it."""
    code = (FOLDER.with_name("templates") / "page.html").read_text(encoding="utf-8") + render(report, language)
    named = set(re.findall(r"tables/(\w+)\.csv", code))
    assert len(named) >= 8
    assert named <= set(tables(report))


# ---- hostile text


@pytest.mark.parametrize("language", LANGUAGES)
def test_hostile_text_stays_text(pages: dict[Language, str], language: Language) -> None:
    """Serials, lots and classes with tags are shown as they are and make no element, in the page or in a chart."""
    html = pages[language]
    assert HOSTILE not in html
    assert HOSTILE in Seen(html).text
    charts = charts_of(html)
    assert any("&lt;script&gt;" in chart for chart in charts)
    for chart in charts:
        assert not any(element.tag.endswith("script") for element in ElementTree.fromstring(chart).iter())


@pytest.mark.parametrize(
    "text", ["$x^2$", "-->", "\u00a70000xx", "缺陷", "]]>", "\x00\x1b[2J", "a" * 300, "", "\\frac{1}{2}"]
)
def test_any_text_can_stand_in_a_chart(text: str) -> None:
    """Formulas, comments, stand-ins, control characters and characters without a font come out as the text they are."""
    with canvas(1.0) as drawn:
        axes = drawn.figure.subplots()
        axes.set_yticks([0, 1], [drawn.text(text), drawn.text("other")])
        svg = drawn.svg()
    shown = [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text")]
    assert shortened(text, 28) in [one or "" for one in shown]
    assert "other" in shown


def test_the_same_report_gives_the_same_bytes(pages: dict[Language, str], report: Report) -> None:
    """Two pages of one report do not differ, so that a copy can be compared."""
    assert pages["en"] == render(report, "en")


# ---- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason='pip install -e ".[dev]" brings playwright')
    if not Path(CHROMIUM).exists():
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with ExitStack() as stack:
        playwright = stack.enter_context(sync_api.sync_playwright())
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        stack.callback(made.close)
        yield made


@pytest.fixture
def files(pages: dict[Language, str], empty: Report, tmp_path: Path) -> dict[str, Path]:
    """The pages as files: one a language, and that of an empty span."""
    written = {**pages, "empty": render(empty, "en")}
    for name, html in written.items():
        (tmp_path / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: tmp_path / f"{name}.html" for name in written}


def test_opens_offline_without_fault(browser: Any, files: dict[str, Path]) -> None:
    """In Chromium the page asks nobody for anything, logs nothing, runs nothing, and every picture of it is drawn."""
    for file in files.values():
        context = browser.new_context(viewport={"width": PANEL[0], "height": PANEL[1]}, offline=True)
        tab = context.new_page()
        asked: list[str] = []
        said: list[str] = []
        tab.on("request", lambda request, asked=asked: asked.append(request.url))
        tab.on("console", lambda message, said=said: said.append(message.text))
        tab.on("dialog", lambda dialog, said=said: (said.append("dialog"), dialog.dismiss()))
        tab.goto(file.as_uri(), timeout=LIMIT_MS)
        undrawn = tab.evaluate("[...document.images].filter(one => !one.complete || !one.naturalWidth).length")
        assert 0 == undrawn
        assert [] == said
        assert [] == [url for url in asked if url != file.as_uri() and not url.startswith("data:")]
        context.close()


def test_fits_panel_and_phone(browser: Any, files: dict[str, Path]) -> None:
    """Nothing is wider than the screen, and axe-core finds no serious fault."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason='pip install -e ".[dev]" brings axe')
    for width, height in (PANEL, PHONE):
        for name, file in files.items():
            tab = browser.new_page(viewport={"width": width, "height": height})
            tab.goto(file.as_uri(), timeout=LIMIT_MS)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, name
            found = axe.Axe().run(tab).response["violations"]
            faults = [
                (fault["id"], fault["nodes"][0]["html"])
                for fault in found
                if fault["impact"] in ("serious", "critical")
            ]
            assert [] == faults, name
            tab.close()


def test_prints_every_section(browser: Any, files: dict[str, Path], tmp_path: Path) -> None:
    """The PDF has all sections in the page's order, every hour of the trend, and pages of A4."""
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed: apt-get install poppler-utils")
    tab = browser.new_page()
    tab.goto(files["en"].as_uri(), timeout=LIMIT_MS)
    tab.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    tab.close()
    told = subprocess.run(
        ["pdftotext", "-layout", tmp_path / "report.pdf", "-"], capture_output=True, check=True, timeout=60
    )
    size = subprocess.run(["pdfinfo", tmp_path / "report.pdf"], capture_output=True, check=True, timeout=60)
    text = re.sub(r"\s+", " ", told.stdout.decode())
    words = Wording("en", UTC).words("page")
    places = [text.find(words[f"h_{name}"]) for name in SECTIONS]
    assert -1 not in places
    assert sorted(places) == places
    assert all(f"2026-11-23 {hour:02d}:00" in text for hour in range(6, 14))
    assert b"A4" in size.stdout
