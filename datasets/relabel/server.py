"""The pages of ``lineside relabel``: the editor, and what its scripts ask for and send.

Samples are asked for by number, their place in the dataset; names and classes are hostile text and never part of a path.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from datasets.manifest_file import label_row
from datasets.relabel.desk import Desk, Save
from datasets.relabel.door import LASTS_S, Door
from datasets.relabel.history import LabelsError
from datasets.relabel.labels import LabelConflict, LabelSet
from datasets.relabel.pictures import picture_bytes, picture_size, thumbnail
from datasets.relabel.proposals import read_coco
from datasets.sample import Sample
from inspection.errors import InspectionError, UsageError
from inspection.log import event
from inspection.web.access import Role
from inspection.web.shell import make_app, page, render
from inspection.web.texts import words

HERE = Path(__file__).parent
KEYS = (
    ("← ↑ → ↓", "key_move"), ("⇧+← ⇧+→", "key_size"), ("Ctrl+→", "key_ten"), ("N", "new_box"), ("1 … 9", "key_class"),
    ("B ⇧+B", "key_boxes"), ("Del", "remove"), ("P", "key_proposal"), ("A", "accept"), ("⇧+A", "accept_all"), ("R", "reject"),
    ("G", "good"), ("Enter", "save_next"), ("S", "save"), ("J K", "key_neighbours"), ("Z ⇧+Z", "key_undo"), ("+ −", "key_zoom"),
    ("F X", "key_fit"), ("C V", "key_golden"), ("H", "hide"), ("D", "key_pan"), ("Esc", "key_escape"), ("?", "all_keys"),
)  # fmt: skip
_FOREVER = {"Cache-Control": f"private, max-age={LASTS_S}, immutable"}  # the address holds the hash of the content
_NO_SIZE = (640, 480)  # of an image that cannot be read, so that its boxes are seen at least
_THUMBNAIL_PX = 168


class _NewClass(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    why: str


def make_pages(desk: Desk, door: Door, *, used: Callable[[], None] = lambda: None) -> Starlette:
    """The application; ``used`` is called after a browser was let in, whose address works no more."""
    pages = [
        page("/", _editor), page("/queue", _queue), page("/session", _session), page("/background", _background),
        page("/enter", _enter, role=Role.NOBODY), page("/sample/{n:int}", _sample), page("/thumb/{n:int}", _thumb),
        page("/{role:str}/{n:int}/{digest:str}", _picture), page("/save", _save, methods=("POST",)),
        page("/class", _add_class, methods=("POST",)), page("/proposals", _upload, methods=("POST",)),
        page("/invite", _invite, methods=("POST",)),
    ]  # fmt: skip
    folders = {"relabel": HERE / "static"}
    return make_app(pages, guard=door, templates=[HERE / "templates"], static=folders, desk=desk, door=door, used=used)


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def _named(request: Request) -> str:
    """The sample that a request's number means; 404 when there is none."""
    number, names = int(request.path_params["n"]), _desk(request).worklist.names
    if number >= len(names):
        raise HTTPException(404, f"there is no sample number {number}")
    return names[number]


def _enter(request: Request) -> Response:
    cookie = request.app.state.door.admit(request.query_params.get("token", ""))
    if cookie is None:
        if request.app.state.door.session(request) is not None:
            return RedirectResponse("/", status_code=303)
        return render(request, "enter.html", section="relabel", status=403)
    event("relabel.entered", who=_desk(request).who)
    request.app.state.used()
    answer = RedirectResponse("/", status_code=303)
    answer.set_cookie(request.app.state.door.cookie, cookie, max_age=LASTS_S, httponly=True, samesite="strict")
    return answer


def _editor(request: Request) -> Response:
    desk, told = _desk(request), words(request.state.language, "relabel")
    keys = [(pressed, told[meaning]) for pressed, meaning in KEYS]
    return render(
        request, "relabel.html", section="relabel", words=json.dumps(dict(told), ensure_ascii=False), key=desk.key,
        dataset=desk.name, key_list=keys,
    )  # fmt: skip


def _session(request: Request) -> Response:
    return JSONResponse({"csrf_token": request.state.csrf_token})


def _background(request: Request) -> Response:
    return JSONResponse(_desk(request).progress())


def _queue(request: Request) -> Response:
    desk = _desk(request)
    rows = desk.worklist.rows(desk.background.order())
    return JSONResponse({"classes": desk.labels.classes, "rows": rows, "background": desk.progress()})


def _sample(request: Request) -> Response:
    desk = _desk(request)
    name = _named(request)
    stored, sample, digest = desk.labels.stored(name), desk.labels.sample(name), desk.digests[name]
    size, trouble = _NO_SIZE, None
    try:
        size = picture_size(sample.image, digest.image)
    except InspectionError as problem:
        trouble = {"what": problem.what, "fix": problem.fix}
    proposals, judged, refused = desk.proposals(name)
    return JSONResponse({
        "n": desk.worklist.number[name], "name": name, "size": size, "trouble": trouble, **_stored(stored),
        "image": _address(desk, name), "proposals": proposals, "judged": judged, "refused": refused,
        "golden": f"/golden/{desk.worklist.number[name]}/{digest.golden[:16]}" if sample.golden else "",
    })  # fmt: skip


def _address(desk: Desk, name: str) -> str:
    return f"/image/{desk.worklist.number[name]}/{desk.digests[name].image[:16]}"


def _stored(labels: LabelSet) -> dict[str, Any]:
    rows = [label_row(label).model_dump() for label in labels.labels]
    return {"labels": rows, "image_class": labels.image_class, "revision": labels.revision}


def _file(request: Request, role: str) -> tuple[Path, str]:
    """The image or golden of the sample asked for, and its SHA-256."""
    desk = _desk(request)
    name = _named(request)
    sample: Sample = desk.labels.sample(name)
    path, digest = sample.image, desk.digests[name].image
    if role == "golden":
        if sample.golden is None:
            raise HTTPException(404, f"sample {name!r} has no golden template")
        path, digest = sample.golden, desk.digests[name].golden
    elif role != "image":
        raise HTTPException(404, "there is no such page")
    return path, digest


def _picture(request: Request) -> Response:
    content, kind = picture_bytes(*_file(request, request.path_params["role"]))
    return Response(content, media_type=kind, headers=_FOREVER)


def _thumb(request: Request) -> Response:
    return Response(thumbnail(*_file(request, "image"), _THUMBNAIL_PX), media_type="image/png")


def _save(request: Request) -> Response:
    desk = _desk(request)
    try:
        given = Save.model_validate_json(json.dumps(request.state.json))
        return JSONResponse(desk.save(given))
    except LabelConflict as conflict:
        sample, digest = desk.labels.sample(conflict.name), desk.digests[conflict.name]
        told = {
            "theirs": _stored(conflict.theirs), "saved_by": conflict.saved_by, "image": _address(desk, conflict.name),
            "size": picture_size(sample.image, digest.image),
        }  # fmt: skip
        return JSONResponse({"what": conflict.what, "fix": conflict.fix, "conflict": told}, status_code=409)
    except (
        LabelsError
    ) as problem:  # the disk or the image: what was sent is right, and goes through once that is mended
        event("relabel.not_saved", what=problem.what)
        return JSONResponse({"what": problem.what, "fix": problem.fix}, status_code=503)
    except ValueError as problem:  # also pydantic's: a label without a size, a text where a number belongs
        raise UsageError(f"these are no labels: {_first(problem)}", fix="draw the box anew") from problem


def _first(problem: ValueError) -> str:
    if isinstance(problem, ValidationError):
        error = problem.errors(include_url=False)[0]
        return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
    return str(problem)


def _add_class(request: Request) -> Response:
    desk = _desk(request)
    try:
        given = _NewClass.model_validate(request.state.json)
    except ValidationError as problem:
        raise UsageError(f"this is no class: {_first(problem)}", fix="give a name") from problem
    desk.labels.add_class(given.name.strip(), who=desk.who, why=given.why)
    return JSONResponse({"classes": desk.labels.classes})


def _upload(request: Request) -> Response:
    desk, file = _desk(request), request.state.form.get("file")
    if not isinstance(file, UploadFile):
        raise UsageError("no file came", fix="choose a COCO file")
    images = [(name, desk.labels.sample(name).image) for name in desk.worklist.names]
    uploaded = read_coco(file.file.read(), images, desk.labels.classes)
    try:
        desk.uploaded.replace(uploaded)
    except OSError as problem:
        raise UsageError(
            f"cannot keep the proposals: {problem.strerror}", fix="check space and permissions"
        ) from problem
    return JSONResponse({"text": uploaded.text()})


def _invite(request: Request) -> Response:
    host = request.headers["host"]
    return JSONResponse({"address": f"http://{host}/enter?token={request.app.state.door.invite()}"})
