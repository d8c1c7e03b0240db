"""The process behind the page: judges every image with the model, then works out the queue.  Lowest priority.

Tells how far it is in JSON lines on stdout, and ends when its stdin does: with the program that started it, however that
one ended.
"""

import json
import os
import sys
from pathlib import Path
from threading import Thread

from datasets.manifest import Dataset, load_dataset
from datasets.relabel.judged import Judged, judged_file, key_of, open_for_writing, prediction_of, write_row
from datasets.relabel.queue import Ranked, rank
from datasets.relabel.vouched import vouched_names
from inspection import log
from inspection.errors import InspectionError
from inspection.images import write_whole
from inspection.judge import Rule
from inspection.model import file_sha256, load_model
from inspection.predict import Prediction, Request, card_criteria, predict, rules_of

ORDER = "order.json"


def main(dataset: Path, cache: Path, model: Path | None) -> int:
    """Judge, rank, tell; exit code 1 after telling what went wrong."""
    log.set_up()
    os.nice(19)
    Thread(target=_end_with_stdin, daemon=True).start()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        present = load_dataset(dataset)
        predictions, rules = ({}, ()) if model is None else _judge_all(present, cache, model)
        _tell(state="ranking")
        queue = rank(present.samples, predictions, reviewed=vouched_names(dataset), rules=rules)
        rows = [_row(one, asked=model is not None) for one in queue]
        write_whole(cache / ORDER, json.dumps(rows, ensure_ascii=False).encode())
        _tell(state="done")
    except InspectionError as problem:
        _tell(state="failed", text=f"{problem.what} - {problem.fix}")
        return 1
    except BrokenPipeError:  # the page's program is gone
        sys.stderr.close()
        return 1
    except OSError as problem:
        _tell(state="failed", text=f"cannot write {cache}: {problem.strerror}")
        return 1
    return 0


def _row(ranked: Ranked, *, asked: bool) -> dict[str, object]:
    """A place in the queue; what rests on a model is no reason where none was ``asked``."""
    reasons = {name: value for name, value in ranked.reasons.items() if asked or name == "novelty"}
    return {"name": ranked.name, "reasons": reasons, "folded": list(ranked.folded)}


def _judge_all(dataset: Dataset, cache: Path, path: Path) -> tuple[dict[str, Prediction], tuple[Rule, ...]]:
    """What the model says of each sample by name, and its limits; images that were judged before are not judged again."""
    file = judged_file(cache, file_sha256(path))
    judged = Judged(file)
    judged.refresh()
    keys = {sample.name: key_of(digest) for sample, digest in zip(dataset.samples, dataset.digests, strict=True)}
    missing = {keys[s.name]: s for s in dataset.samples if keys[s.name] not in judged.rows}
    model = load_model(path, threads=1)
    count, of = len(keys) - len(missing), len(keys)
    _tell(state="judging", judged=count, of=of)
    requests = [Request(sample.image, sample.golden) for sample in missing.values()]
    with open_for_writing(file) as out:
        for key, prediction in zip(missing, predict(model, requests, card_criteria(model)), strict=True):
            write_row(out, key, prediction)
            count += 1
            _tell(state="judging", judged=count, of=of)
    judged.refresh()
    return {name: prediction_of(judged.rows[key]) for name, key in keys.items()}, rules_of(model.card)


def _end_with_stdin() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)  # what is written is written line by line, and a torn line does not count


def _tell(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _dataset, _cache, _model = sys.argv[1:]
    raise SystemExit(main(Path(_dataset), Path(_cache), Path(_model) if _model else None))
