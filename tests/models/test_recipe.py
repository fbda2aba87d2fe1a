"""An option of our own recipe that the paper does not have: the identity start."""

import pytest
import torch
import torch.nn.functional as F

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.token_reduction import Reduction


def features(model, seed=0):
    vision = model.vision
    return torch.randn(2, vision.num_tokens, vision.num_features, generator=torch.Generator().manual_seed(seed))


def test_from_the_identity_start_layers_only_merge(tiny_model):
    connector = tiny_model("any", connector_start="identity").connector
    given = features(tiny_model("any"))
    with torch.no_grad():
        tokens, reduction = connector.reduce(given)
        # the layer norms of the layers start with weight 1 and bias 0, so what is merged is normalised again
        expected = connector.embeddings(connector.input_proj(given))
        before = Reduction.identity(*given.shape[:2])
        for _, so_far in connector.reduce_by_layer(given):
            step = torch.zeros(2, so_far.num_out, before.num_out)
            for sample in range(2):
                step[sample, so_far.target[sample], before.target[sample]] = 1.0
            step = step / step.sum(-1, keepdim=True)
            merged = step @ F.layer_norm(expected, expected.shape[-1:], eps=1e-12)
            expected, before = F.layer_norm(merged, merged.shape[-1:], eps=1e-12), so_far
    assert reduction.num_out < given.shape[1]
    assert torch.allclose(tokens, expected, atol=1e-4)


def test_every_layer_of_an_identity_start_learns_after_one_step(tiny_model, batch):
    model = tiny_model("any", connector_start="identity").train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        model(batch)["loss"].backward()
        optimizer.step()
    for name, parameter in model.connector.named_parameters():
        if "key.bias" not in name:
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"connector_start": "zero"}, "connector_start: 'zero' is unknown; choose bert or identity"),
        ({"connector_start": "identity", "bert_model": "some-bert"}, "set bert_model: null"),
    ],
)
def test_what_does_not_go_together_is_refused(tiny_model, options, message):
    with pytest.raises(ConfigError, match=message):
        tiny_model("any", **options)
