"""Miniatures of public captioning data sets: the files of the releases with the same keys, pictures of one colour."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250), "white": (250, 250, 250), "black": (0, 0, 0)}


def captions(colour: str) -> list[str]:
    """Five references of a picture, as people might give them; the first is the one our stand-in model says."""
    return [
        f"A picture that is {colour} all over.",
        f"the whole picture is painted {colour}",
        f"Nothing but {colour}, everywhere!",
        f"A {colour} rectangle",
        f"It's a (very) {colour} image.",
    ]


def picture(path: Path, colour: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), COLOURS[colour]).save(path, quality=95)


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def coco(folder: Path) -> dict[str, Path]:
    """COCO 2014: six pictures; Karpathy's file, COCO's own of val2014, and LAVIS's lists."""
    pictures = [
        # split of Karpathy's, folder, number, colour
        ("train", "train2014", 9, "red"),
        ("restval", "val2014", 42, "green"),
        ("val", "val2014", 391895, "blue"),
        ("val", "val2014", 522418, "white"),
        ("test", "val2014", 184613, "black"),
    ]
    karpathy, official, annotations, lists = [], [], [], {"train": [], "val": [], "test": []}
    for index, (split, part, number, colour) in enumerate(pictures):
        name = f"COCO_{part}_{number:012d}.jpg"
        picture(folder / "images" / part / name, colour)
        texts = captions(colour)
        sentences = [
            {"tokens": text.lower().split(), "raw": text, "imgid": index, "sentid": 5 * index + n}
            for n, text in enumerate(texts)
        ]
        karpathy.append(
            {
                "filepath": part,
                "sentids": [sentence["sentid"] for sentence in sentences],
                "filename": name,
                "imgid": index,
                "split": split,
                "sentences": sentences,
                "cocoid": number,
            }
        )
        if part == "val2014":
            official.append(
                {
                    "license": 3,
                    "file_name": name,
                    "coco_url": f"http://images.cocodataset.org/{part}/{name}",
                    "height": 30,
                    "width": 40,
                    "date_captured": "2013-11-14 11:18:45",
                    "flickr_url": "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg",
                    "id": number,
                }
            )
            annotations += [
                {"image_id": number, "id": 100 * index + n, "caption": text} for n, text in enumerate(texts)
            ]
        if split in ("train", "restval"):
            lists["train"] += [{"caption": t, "image": f"{part}/{name}", "image_id": f"coco_{number}"} for t in texts]
        else:
            lists[split].append({"image": f"{part}/{name}", "caption": texts})
    files = {
        "karpathy": write(folder / "dataset_coco.json", {"images": karpathy, "dataset": "coco"}),
        "official": write(
            folder / "captions_val2014.json",
            {
                "info": {"year": 2014, "description": "COCO 2014 Dataset"},
                "licenses": [],
                "images": official,
                "annotations": annotations,
            },
        ),
    }
    files |= {split: write(folder / f"coco_karpathy_{split}.json", rows) for split, rows in lists.items()}
    return {**files, "images": folder / "images"}


NOCAPS = {0: ("red", "in-domain"), 1: ("green", "near-domain"), 2: ("blue", "near-domain"), 3: ("white", "out-domain")}


def nocaps(folder: Path, layout: str = "val") -> dict[str, Path]:
    """nocaps: four validation pictures (two of them near-domain) with ten captions, one test picture without."""
    images, annotations = [], []
    for number, (colour, domain) in NOCAPS.items():
        name = f"{0x13EA2087020901 + number:016x}.jpg"
        picture(folder / "images" / layout / name, colour)
        images.append(_nocaps_picture(number, name, "val", domain))
        annotations += [
            {"image_id": number, "id": 10 * number + n, "caption": text} for n, text in enumerate(2 * captions(colour))
        ]
    name = "001331ca2caeb2ec.jpg"
    picture(folder / "images" / "test" / name, "black")
    info = {"url": "http://nocaps.org", "date_created": "2018/11/06", "version": "0.1", "year": 2018}
    val = {"licenses": [], "info": info, "images": images, "annotations": annotations}
    test = {"licenses": [], "info": info, "images": [_nocaps_picture(0, name, "test", "in-domain")]}
    lavis = [{"image": f"val/{each['file_name']}", "img_id": each["id"]} for each in images]
    return {
        "val": write(folder / "nocaps_val_4500_captions.json", val),
        "test": write(folder / "nocaps_test_image_info.json", test),
        "lavis": write(folder / "lavis" / "nocaps_val.json", lavis),
        "images": folder / "images",
    }


def _nocaps_picture(number: int, name: str, split: str, domain: str) -> dict[str, Any]:
    return {
        "license": 0,
        "open_images_id": name[:-4],
        "coco_url": f"https://s3.amazonaws.com/nocaps/{split}/{name}",
        "date_captured": "2018-11-06 11:04:33",
        "file_name": name,
        "height": 30,
        "width": 40,
        "id": number,
        "domain": domain,
    }


FLICKR = {
    1000092795: ("train", "red"), 10002456: ("train", "green"), 1018148011: ("val", "blue"),
    1007129816: ("test", "white"), 1009434119: ("test", "black"),
}  # fmt: skip


def flickr30k(folder: Path, layout: str = "flickr30k-images") -> dict[str, Path]:
    """Flickr30k: Karpathy's file, LAVIS's lists, and the release's tokens."""
    karpathy, lists, tokens = [], {"train": [], "val": [], "test": []}, []
    for index, (number, (split, colour)) in enumerate(FLICKR.items()):
        name, texts = f"{number}.jpg", captions(colour)
        picture(folder / "images" / layout / name, colour)
        sentences = [
            {"tokens": t.split(), "raw": t, "imgid": index, "sentid": 5 * index + n} for n, t in enumerate(texts)
        ]
        karpathy.append({"sentids": [], "imgid": index, "sentences": sentences, "split": split, "filename": name})
        tokens += [f"{name}#{n}\t{text}" for n, text in enumerate(texts)]
        image = f"flickr30k-images/{name}"
        if split == "train":
            lists[split] += [{"image": image, "caption": t, "image_id": f"flickr30k_{number}"} for t in texts]
        else:
            lists[split].append({"image": image, "caption": texts})
    files = {
        "karpathy": write(folder / "dataset_flickr30k.json", {"images": karpathy, "dataset": "flickr30k"}),
        "token": write(folder / "results_20130124.token", "\n".join(tokens) + "\n"),
    }
    files |= {split: write(folder / "lavis" / f"{split}.json", rows) for split, rows in lists.items()}
    return {**files, "images": folder / "images"}
