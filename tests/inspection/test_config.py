import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from inspection.config import StationConfig, is_loopback, load_station
from inspection.errors import ConfigError
from inspection.recipe_config import Recipe, load_recipe
from inspection.rois import Roi

RECIPE = """
recipe_id = "board-a"
product = "Board A"

[views.top]
golden = "golden.png"

[[views.top.rules]]
defect_class = "open"
ng_score = 0.5
review_score = 0.25
"""
STATION = """
station_id = "st1"
recipe = "recipes/board-a"
store = "records.sqlite"

[evidence]
folder = "evidence"

[cameras.top]
kind = "folder"
folder = "frames"

[controller]
kind = "simulated"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "file.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str, *, station: bool = False) -> str:
    with pytest.raises(ConfigError) as refused:
        (load_station if station else load_recipe)(written(folder, text))
    assert refused.value.fix
    return refused.value.what


def models(kind: object) -> Iterator[type[BaseModel]]:
    """A config model and every model below it."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from models(field.annotation)
    for part in get_args(kind):
        yield from models(part)


def test_smallest_recipe_is_read(tmp_path: Path) -> None:
    """What is not given has its default, and nothing that is given is changed."""
    recipe = load_recipe(written(tmp_path, RECIPE))
    assert recipe.recipe_id == "board-a"
    (view,) = recipe.views.values()
    assert (view.model, view.rois, recipe.serial.source) == ("model.onnx", (), "controller")
    rule = view.rules[0].rule()
    assert (rule.ng_score, rule.review_score, rule.roi, rule.allowed_count, rule.needs_scale) == (
        0.5,
        0.25,
        "",
        0,
        False,
    )


def test_sections_become_what_the_runtime_takes(tmp_path: Path) -> None:
    """Every limit of the file reaches the registration and the gate."""
    text = (
        RECIPE
        + "[views.top.registration]\nmax_shift_px = 7\nmin_quality = 0.9\n[views.top.quality]\nmin_contrast = 3\n"
    )
    view = load_recipe(written(tmp_path, text)).views["top"]
    assert (7, 0.9) == (view.registration.limits().max_shift_px, view.registration.limits().min_quality)
    assert view.quality.limits().min_contrast == 3


def test_paths_of_a_station_count_from_its_file(tmp_path: Path) -> None:
    """A station can be started from any folder."""
    text = STATION + '\n[cameras.side]\nkind = "simulated"\nimage = "golden.png"\n'
    station = load_station(written(tmp_path, text))
    assert str(tmp_path / "recipes/board-a") == station.recipe
    assert str(tmp_path / "records.sqlite") == station.store
    assert str(tmp_path / "evidence") == station.evidence.folder
    assert str(tmp_path / "frames") == getattr(station.cameras["top"], "folder", "")
    assert str(tmp_path / "golden.png") == getattr(station.cameras["side"], "image", "")


def test_files_of_publishers_count_from_the_station_file(tmp_path: Path) -> None:
    """Folders, certificates and passwords lie beside the config; what is not given stays empty."""
    text = (
        STATION
        + """
[publishers.share]
kind = "folder"
folder = "share"
[publishers.plant]
kind = "mqtt"
host = "broker"
user = "line"
password_file = "secrets/mqtt"
"""
    )
    publishers = load_station(written(tmp_path, text)).publishers
    assert {"share", "plant"} == set(publishers)
    assert str(tmp_path / "share") == publishers["share"].folder  # type: ignore[union-attr]
    assert str(tmp_path / "secrets/mqtt") == publishers["plant"].password_file  # type: ignore[union-attr]
    assert publishers["plant"].ca_file == ""  # type: ignore[union-attr]


def test_absolute_paths_stay(tmp_path: Path) -> None:
    """A full path is taken as it is."""
    assert load_station(written(tmp_path, STATION.replace("records.sqlite", "/data/r.db"))).store == "/data/r.db"


def test_every_mistake_of_a_recipe_is_told_at_once(tmp_path: Path) -> None:
    """One look at the message is enough to correct the file."""
    text = """
        recipe_id = "no spaces allowed"
        colour = "red"
        deadline_ms = 0
        [views.top.registration]
        min_quality = 0.0
        [views.top.quality]
        min_sharpness = "sharp"
        [[views.top.rules]]
        defect_class = "open"
        ng_score = 0.2
        review_score = 0.5
        [[views.top.rules]]
        defect_class = "open"
        ng_score = 1.5
        limit = 3
    """
    what = refusal(tmp_path, text)
    keys = (
        "recipe_id", "product", "colour", "deadline_ms", "views.top.registration.min_quality",
        "views.top.quality.min_sharpness", "views.top.rules.0", "views.top.rules.1.ng_score",
        "views.top.rules.1.review_score", "views.top.rules.1.limit",
    )  # fmt: skip
    assert all(f"{key}: " in what for key in keys)
    assert f"has {len(keys)} mistakes" in what
    assert str(tmp_path) in what


def test_two_rules_for_a_class_are_told_beside_other_mistakes(tmp_path: Path) -> None:
    """A second rule for a class is a mistake of its own."""
    twice = RECIPE.replace("0.25", "0.3") + RECIPE[RECIPE.index("[[views.top.rules]]") :]
    what = refusal(tmp_path, "colour = 1\n" + twice)
    assert "more than one rule for open" in what
    assert "colour: unknown key" in what


def test_every_mistake_of_a_station_is_told_at_once(tmp_path: Path) -> None:
    """Mistakes in cameras and controller are told together with those of the top."""
    text = STATION.replace('folder = "frames"', 'loop = "perhaps"').replace('store = "records.sqlite"', "threads = -1")
    what = refusal(tmp_path, text + "pace = 3\n", station=True)
    for key in (
        "store",
        "threads",
        "cameras.top.folder.folder",
        "cameras.top.folder.loop",
        "controller.simulated.pace",
    ):
        assert f"{key}: " in what


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("colour = 1", "colour"),
        ("[detector]\nfloor = 0.5", "detector"),
        ("[views.top.quality]\nmax_noise = 1", "views.top.quality.max_noise"),
        ("[views.top.registration]\nmax_shift = 3", "views.top.registration.max_shift"),
        ("[views.side]\ncolour = 1", "views.side.colour"),
    ],
)
def test_unknown_key_is_refused(tmp_path: Path, line: str, key: str) -> None:
    """A misspelt key is never ignored, however deep it lies."""
    assert f"{key}: unknown key" in refusal(tmp_path, f"{line}\n{RECIPE}" if "[" not in line else RECIPE + line)


def test_unknown_key_at_the_top_lists_the_known_ones(tmp_path: Path) -> None:
    """The message helps to find the right spelling."""
    assert "deadline_ms" in refusal(tmp_path, "dead_line = 1\n" + RECIPE)


OFF = (
    "ng_score = 0.995", "ng_score = 1.0", "ng_score = 2", "ng_score = nan", "ng_score = inf", "ng_score = 0.0",
    "review_score = 0.0", "review_score = -1", "review_score = 0.001", "review_score = nan", "review_score = 0.6",
)  # fmt: skip


@pytest.mark.parametrize("line", OFF)
def test_rule_that_would_never_reject_is_refused(tmp_path: Path, line: str) -> None:
    """Limits that no score reaches, or that any noise reaches, switch the check off."""
    key = line.split(" ")[0]
    assert "rules" in refusal(tmp_path, re.sub(rf"{key} = .*", line, RECIPE))


LIMITS_OFF = (
    "[quality]\nmin_contrast = 0", "[quality]\nmin_sharpness = 0", "[quality]\nmin_brightness = 0",
    "[quality]\nmax_brightness = 256", "[quality]\nmin_contrast = nan", "[quality]\nmin_sharpness = -inf",
    "[registration]\nmin_quality = 0", "[registration]\nmin_quality = 0.2", "[registration]\nmin_coverage = 0.1",
    "[registration]\nmax_shift_px = inf", "[registration]\nmax_shift_px = 1000", "[registration]\nmax_rotate_deg = 90",
    "[registration]\nmax_scale = 1", "[registration]\nmin_quality = nan",
)  # fmt: skip


@pytest.mark.parametrize("lines", LIMITS_OFF)
def test_limit_that_would_switch_a_check_off_is_refused(tmp_path: Path, lines: str) -> None:
    """Limits at which no frame would ever be refused are out of range, and the allowed range is told."""
    key = lines.split("\n")[1].split(" ")[0]
    assert re.search(
        rf"\.{key}: input should be (greater|less|a finite)",
        refusal(tmp_path, RECIPE + lines.replace("[", "[views.top.")),
    )


@pytest.mark.parametrize(
    "text", [RECIPE[: RECIPE.index("[[views")], RECIPE.replace("[[views.top.rules]]", "[views.top.rules]")]
)
def test_recipe_without_rules_is_refused(tmp_path: Path, text: str) -> None:
    """Without rules every part would be OK."""
    assert "rules: " in refusal(tmp_path, text)


@pytest.mark.parametrize("text", ["", RECIPE[: RECIPE.index("[views")], RECIPE[: RECIPE.index("[views")] + "[views]\n"])
def test_recipe_without_views_is_refused(tmp_path: Path, text: str) -> None:
    """A recipe that looks at nothing would pass everything."""
    assert "views: " in refusal(tmp_path, text)


@pytest.mark.parametrize("name", ["model", "golden", "recipe_id"])
@pytest.mark.parametrize("value", ["../model.onnx", "/etc/passwd", "a/b", ".hidden", "a b"])
def test_names_do_not_lead_out_of_the_folder(tmp_path: Path, name: str, value: str) -> None:
    """What a recipe names lies in its own, sealed folder."""
    text = re.sub(rf"^{name} = .*\n", "", RECIPE, flags=re.MULTILINE)
    named = f'{name} = "{value}"\n'
    made = named + text if name == "recipe_id" else text.replace("[views.top]\n", f"[views.top]\n{named}")
    assert f"{name}: " in refusal(tmp_path, made)


@pytest.mark.parametrize("role", ['"../top"', '"a b"', '""', '".top"'])
def test_role_is_a_plain_name(tmp_path: Path, role: str) -> None:
    """The role of a camera can be part of file and stage names."""
    assert "views." in refusal(tmp_path, RECIPE.replace("views.top", f"views.{role}"))


def test_recipe_of_schema_1_is_refused_with_the_way_on(tmp_path: Path) -> None:
    """Who has a recipe of one camera in the old form is told which keys go where."""
    old = RECIPE.replace("[views.top]", 'camera = "front"').replace("views.top.", "")
    with pytest.raises(ConfigError) as refused:
        load_recipe(written(tmp_path, old))
    assert "schema 1" in refused.value.what
    assert "camera, golden, rules" in refused.value.what
    assert "[views.front]" in refused.value.fix
    assert "lineside recipe new" in refused.value.fix


ROI = '[[views.top.rois]]\nid = "rim"\n'
RULE = '[[views.top.rules]]\ndefect_class = "open"\nng_score = 0.9\nreview_score = 0.9\nroi = "rim"\n'


def test_region_and_its_rule_are_read(tmp_path: Path) -> None:
    """A box is a polygon of four corners, and a rule names the region it holds for."""
    text = RECIPE + ROI + "box_px = [1, 2, 30, 40]\n" + RULE + "min_area_mm2 = 0.5\nallowed_count = 2\nedge_mm = 0.3\n"
    view = load_recipe(written(tmp_path, text)).views["top"]
    assert Roi("rim", "inspect", ((1, 2), (30, 2), (30, 40), (1, 40))) == view.rois[0].roi()
    rule = view.rules[1].rule()
    assert ("rim", 0.5, 2, 0.3, True) == (
        rule.roi, rule.min_area_mm2, rule.allowed_count, rule.edge_mm, rule.needs_scale
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (ROI, "either box_px or polygon_px"),
        (ROI + "box_px = [1, 2, 3, 4]\npolygon_px = [[0, 0], [9, 0], [0, 9]]", "either box_px or polygon_px"),
        (ROI + "box_px = [30, 2, 1, 40]", "x2 > x1"),
        (ROI + "box_px = [1, 2, inf, 40]", "finite"),
        (ROI + "polygon_px = [[0, 0], [9, 0]]", "at least 3"),
        (ROI + "polygon_px = [[0, 0], [9, 0], [0, 9], [9, 9]]", "must not cross"),
        (ROI + "polygon_px = [[0, 0], [9, 0], [18, 0]]", "enclose an area"),
        (ROI + 'kind = "ignore"\nbox_px = [1, 2, 3, 4]', "keep_out"),
        (2 * (ROI + "box_px = [1, 2, 3, 4]\n"), "more than one region is called rim"),
        (RULE, "rules name rim"),
        (ROI + 'kind = "keep_out"\nbox_px = [1, 2, 3, 4]\n' + RULE, "rules name rim"),
        (ROI + "box_px = [1, 2, 3, 4]\n" + 2 * RULE, "more than one rule for open in rim"),
        (ROI + "box_px = [1, 2, 3, 4]\n" + RULE.replace("open", "burr"), "no general rule (one without roi) for burr"),
        (RULE.replace('roi = "rim"', "edge_mm = 1.0").replace("open", "burr"), "edge_mm needs a region"),
        (RULE.replace("open", "burr") + "min_area_mm2 = -1", "min_area_mm2"),
        (RULE.replace("open", "burr") + "allowed_count = -1", "allowed_count"),
        ('[serial]\ncamera = "side"', "serial.camera is 'side'"),
    ],
)
def test_region_or_rule_that_makes_no_sense_is_refused(tmp_path: Path, lines: str, told: str) -> None:
    """Regions that enclose nothing and rules for regions that do not exist would silently check nothing."""
    assert told in refusal(tmp_path, RECIPE + lines)


def test_scale_and_trusted_keys_of_a_station(tmp_path: Path) -> None:
    """Millimetres per pixel belong to the machine; key files count from the config's folder."""
    text = 'trusted_keys = ["keys/anna.pub"]\n' + STATION + "[scale_mm_per_px]\ntop = 0.05\n"
    station = load_station(written(tmp_path, text))
    assert ({"top": 0.05}, (str(tmp_path / "keys/anna.pub"),)) == (station.scale_mm_per_px, station.trusted_keys)
    assert "scale_mm_per_px.top: " in refusal(tmp_path, text.replace("0.05", "0"), station=True)


@pytest.mark.parametrize("text", ["recipe_id = ", "\x00", "[a]\n[a]\n"])
def test_broken_toml_is_named(tmp_path: Path, text: str) -> None:
    """A file that is no TOML is refused with the place."""
    assert "is not valid TOML" in refusal(tmp_path, text)


def test_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    """A picture given as config is refused."""
    (tmp_path / "a.toml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ConfigError, match="is no text file"):
        load_recipe(tmp_path / "a.toml")


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    """A missing file and a folder are config errors with their path."""
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path))):
        load_station(tmp_path / name)


@pytest.mark.parametrize("kind", ["camera", "controller"])
def test_unknown_kind_of_device_lists_the_known_ones(tmp_path: Path, kind: str) -> None:
    """A misspelt device is refused before anything is opened."""
    old = 'kind = "folder"' if kind == "camera" else 'kind = "simulated"'
    what = refusal(tmp_path, STATION.replace(old, 'kind = "pigeon"'), station=True)
    assert "pigeon" in what
    assert "simulated" in what


ALL_MODELS = sorted(
    {model for top in (Recipe, StationConfig) for model in models(top)}, key=lambda model: model.__name__
)


@pytest.mark.parametrize("model", ALL_MODELS)
def test_every_key_is_described(model: type[BaseModel]) -> None:
    """The configuration reference can say of every key what it means; `kind` names the section itself."""
    assert [] == [name for name, field in model.model_fields.items() if not field.description and name != "kind"]


@pytest.mark.parametrize("model", ALL_MODELS)
def test_every_section_is_frozen_and_refuses_unknown_keys(model: type[BaseModel]) -> None:
    """No section can be changed after loading or swallow a misspelt key."""
    assert model.model_config.get("frozen") is True
    assert model.model_config.get("extra") == "forbid"


def test_a_station_names_no_threshold_and_a_recipe_no_device() -> None:
    """What a product needs and what a machine needs stay apart."""
    ours, theirs = ({name for model in models(top) for name in model.model_fields} for top in (Recipe, StationConfig))
    assert not set(models(Recipe)) & set(models(StationConfig))
    assert not [name for name in theirs if "score" in name or "quality" in name or "threshold" in name]
    assert not [name for name in ours if name in ("host", "port", "folder", "store", "serials")]


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "deploy" / "stations").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_example_station_is_valid(path: Path) -> None:
    """The examples can be started from."""
    assert load_station(path).station_id


# ---- the pages


def test_pages_have_defaults_and_files_beside_the_config(tmp_path: Path) -> None:
    """Without a section the pages are served on this computer alone; certificate and key count from the config's folder."""
    hmi = load_station(written(tmp_path, STATION)).hmi
    assert ("127.0.0.1", 8420, "en", ("06:00", "14:00", "22:00"), 0.0) == (
        hmi.host, hmi.port, hmi.language, hmi.shifts, hmi.review_ok_share,
    )  # fmt: skip
    text = STATION + '\n[hmi]\nhost = "0.0.0.0"\ntls_certificate = "line.pem"\ntls_key = "/keys/line.key"\n'
    hmi = load_station(written(tmp_path, text)).hmi
    assert (str(tmp_path / "line.pem"), "/keys/line.key") == (hmi.tls_certificate, hmi.tls_key)


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        ('host = "0.0.0.0"', "passwords would go there in the clear"),
        ('host = "line-3.plant"', "passwords would go there in the clear"),
        ('host = "192.168.1.5"\ntls_key = "a"', "belong together"),
        ('tls_certificate = "a"', "belong together"),
        ('shifts = ["06:00", "06:00"]', "do not ascend"),
        ('shifts = ["22:00", "06:00"]', "do not ascend"),
        ('shifts = ["24:00"]', "hmi.shifts.0"),
        ('shifts = ["6:00"]', "hmi.shifts.0"),
        ('shifts = ["06:00\\n"]', "hmi.shifts.0"),
        ("shifts = []", "hmi.shifts"),
        ('shifts = ["00:00", "01:00", "02:00", "03:00", "04:00", "05:00", "06:00"]', "hmi.shifts"),
        ("port = 0", "hmi.port"),
        ('language = "de"', "hmi.language"),
        ("review_ok_share = 1.5", "hmi.review_ok_share"),
    ],
)
def test_a_wrong_key_of_the_pages_is_named(tmp_path: Path, keys: str, mistake: str) -> None:
    """Whoever opens the pages to other computers without TLS, or writes shifts that are none, is told so."""
    with pytest.raises(ConfigError, match=re.escape(mistake)):
        load_station(written(tmp_path, f"{STATION}\n[hmi]\n{keys}\n"))


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_only_this_computer_is_loopback(host: str, here: bool) -> None:
    """An address that other computers can reach is not one of this computer's own."""
    assert here == is_loopback(host)
