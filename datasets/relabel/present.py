"""The present state of a dataset that is edited, held so that one save costs little however many samples there are."""

import json
from bisect import bisect_left, insort
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.manifest import Dataset, Digest, content_row, dataset_of, version_of
from datasets.manifest_file import MANIFEST, Manifest, SampleRow, label_row, manifest_text, read_manifest, row_text
from datasets.relabel.history import Change, LabelSet
from datasets.sample import Sample


@dataclass(frozen=True, slots=True, eq=False)
class Present:
    """A dataset folder at one version.  Never changed: ``after`` gives the next one.

    ``rows`` and ``texts`` are the rows of dataset.json and their text, ``content`` the sorted content rows that the
    version is the hash of, each beside its form as a JSON string.
    """

    folder: Path
    head: Manifest
    samples: dict[str, Sample]
    digests: dict[str, Digest]
    rows: dict[str, SampleRow]
    texts: dict[str, str]
    content: list[tuple[str, str]]
    escapes: frozenset[str]

    @property
    def version(self) -> str:
        """The version of the dataset."""
        return self.head.version

    @property
    def classes(self) -> tuple[str, ...]:
        """The defect classes of the dataset."""
        return tuple(self.head.classes)

    def labels(self, name: str) -> LabelSet:
        """What is stored of a sample."""
        sample = self.samples[name]
        return LabelSet(sample.labels, sample.image_class)

    def text(self) -> bytes:
        """The whole ``dataset.json``."""
        return manifest_text(self.head, self.texts.values()).encode()

    def after(self, change: Change) -> "Present":
        """The state that a change leads to; its ``version`` need not be what the change says."""
        if change.added_class:
            return self.with_class(change.added_class)
        return self.relabelled(change.sample, change.after)

    def with_class(self, defect_class: str) -> "Present":
        """With one more class."""
        return self._headed([*self.head.classes, defect_class], self.content)

    def relabelled(self, name: str, given: LabelSet) -> "Present":
        """With other labels of one sample."""
        old = self.samples[name]
        sample = replace(old, labels=given.labels, image_class=given.image_class)
        labels = [label_row(label) for label in given.labels]
        row = self.rows[name].model_copy(update={"labels": labels, "image_class": given.image_class})
        digest = self.digests[name]
        content = self.content.copy()
        del content[bisect_left(content, _keyed(old, digest))]
        insort(content, _keyed(sample, digest))
        state = self._headed(list(self.head.classes), content)
        return replace(
            state,
            samples={**self.samples, name: sample},
            rows={**self.rows, name: row},
            texts={**self.texts, name: row_text(row)},
        )

    def _headed(self, classes: list[str], content: list[tuple[str, str]]) -> "Present":
        version = version_of(classes, (text for _, text in content))
        head = self.head.model_copy(update={"classes": classes, "version": version})
        return replace(self, head=head, content=content)

    def dataset(self) -> Dataset:
        """The same as the ``Dataset`` that everything else reads."""
        manifest = self.head.model_copy(update={"samples": list(self.rows.values())})
        return replace(dataset_of(manifest, self.folder), escapes=self.escapes)


def _keyed(sample: Sample, digest: Digest) -> tuple[str, str]:
    row = content_row(sample, digest)
    return row, json.dumps(row)


def read_present(folder: Path) -> Present:
    """The present state of a dataset folder; UsageError listing every mistake in it."""
    manifest = read_manifest(folder / MANIFEST)
    dataset = dataset_of(manifest, folder)
    pairs = list(zip(dataset.samples, dataset.digests, strict=True))
    return Present(
        folder=folder,
        head=manifest.model_copy(update={"samples": []}),
        samples={sample.name: sample for sample in dataset.samples},
        digests={sample.name: digest for sample, digest in pairs},
        rows={row.name: row for row in manifest.samples},
        texts={row.name: row_text(row) for row in manifest.samples},
        content=sorted(_keyed(sample, digest) for sample, digest in pairs),
        escapes=dataset.escapes,
    )
