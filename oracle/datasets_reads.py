"""Reads exported data sets as other software does and prints what it saw.

    python oracle/datasets_reads.py DIR

DIR holds Parquet parts (imagecot curate export --format parquet-images), read by `datasets.load_dataset`, or conversations.json
with its images (--format llava), read by the rules of LLaVA's lazy data set: one <image> in the first question, turns of
human and gpt in alternation, the picture opened as RGB. Any fault ends with an assertion."""
import collections
import json
import pathlib
import sys

from PIL import Image


def parquet(folder):
    import datasets

    data = datasets.load_dataset("parquet", data_files=str(folder / "part-*.parquet"), split="train")
    pictures = [name for name, kind in data.features.items() if isinstance(kind, datasets.Image)]
    grids = [name for name in data.features if name.endswith("tokens")]
    assert pictures and len(grids) == len(pictures), data.features
    sizes, labels = collections.Counter(), collections.Counter()
    for row in data:
        for name in pictures:
            assert isinstance(row[name], Image.Image) and row[name].convert("RGB").getextrema(), name
            sizes[row[name].size] += 1
        assert all(isinstance(token, int) for name in grids for token in row[name])
        labels[row.get("outcome", row.get("reason"))] += 1
    return {"rows": len(data), "features": {k: type(v).__name__ for k, v in data.features.items()},
            "picture_sizes": {f"{w}x{h}": n for (w, h), n in sizes.items()}, "labels": dict(labels.most_common(5))}


def llava(folder):
    rows = json.loads((folder / "conversations.json").read_text())
    turns, sizes = collections.Counter(), collections.Counter()
    for row in rows:
        talk = row["conversations"]
        assert [t["from"] for t in talk] == ["human", "gpt"] * (len(talk) // 2), row["id"]
        assert talk[0]["value"].startswith("<image>"), row["id"]
        assert sum(t["value"].count("<image>") for t in talk) == 1, row["id"]
        with Image.open(folder / row["image"]) as picture:
            sizes[picture.convert("RGB").size] += 1
        turns[len(talk)] += 1
    assert len({row["id"] for row in rows}) == len(rows)
    return {"rows": len(rows), "turns": dict(turns), "picture_sizes": {f"{w}x{h}": n for (w, h), n in sizes.items()}}


where = pathlib.Path(sys.argv[1])
print(json.dumps(llava(where) if (where / "conversations.json").exists() else parquet(where), indent=1))
