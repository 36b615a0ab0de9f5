"""The shape of a text policy: deep enough that one block of a head cannot repeat what the trunk does."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen2; the defaults come to 4.1 million parameters, of which the tied embedding has 0.4."""

    vocabulary: int = 2048
    layers: int = 8
    width: int = 192
    inner: int = 640
    heads: int = 3
    kv_heads: int = 1
    context: int = 1024


def build_policy(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """The untrained policy; its weights follow torch's global seed."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.inner,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=shape.context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
