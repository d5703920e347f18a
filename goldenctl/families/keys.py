"""Keys of ``config.json``: those that decide something, and those that mean nothing here."""

from __future__ import annotations

from typing import Any


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ROPE_TYPES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    # rope_type: (required keys, optional keys) besides rope_type and rope_theta
    "default": (frozenset(), frozenset()),
    "linear": (frozenset({"factor"}), frozenset()),
    "dynamic": (frozenset({"factor"}), frozenset()),
    "proportional": (frozenset(), frozenset({"factor"})),
    "longrope": (
        frozenset({"short_factor", "long_factor"}),
        frozenset({"original_max_position_embeddings", "attention_factor", "factor"}),
    ),
    "llama3": (
        frozenset({"factor", "low_freq_factor", "high_freq_factor"}),
        frozenset({"original_max_position_embeddings"}),
    ),
    "yarn": (
        frozenset({"factor"}),
        frozenset(
            {
                "original_max_position_embeddings",
                "attention_factor",
                "beta_fast",
                "beta_slow",
                "mscale",
                "mscale_all_dim",
                "truncate",
            }
        ),
    ),
}

# Keys that decide something and are read by config.py.
READ_KEYS = _words(
    """
    model_type vocab_size hidden_size intermediate_size num_hidden_layers
    num_attention_heads num_key_value_heads head_dim rms_norm_eps max_position_embeddings
    rope_theta rope_scaling rope_parameters tie_word_embeddings attention_bias mlp_bias
    dtype torch_dtype sliding_window use_sliding_window max_window_layers layer_types
    """
)

# Keys that change nothing in an inference forward pass, whatever their value: tokens and
# text generation, training, bookkeeping of tools.
HARMLESS_KEYS = _words(
    """
    _name_or_path name_or_path _commit_hash architectures transformers_version
    transformers.js_config unsloth_version unsloth_fixed model_name
    bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id decoder_start_token_id
    use_cache attention_dropout hidden_dropout hidden_dropout_prob attention_probs_dropout_prob
    resid_pdrop embd_pdrop initializer_range _sliding_window_pattern
    output_attentions output_hidden_states return_dict
    id2label label2id num_labels problem_type finetuning_task task_specific_params
    tokenizer_class prefix model_max_length use_bfloat16 max_sequence_length
    _attn_implementation _attn_implementation_autoset attn_implementation cache_implementation
    is_llama_config
    max_length min_length max_new_tokens do_sample temperature top_k top_p typical_p
    repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size
    num_beams num_beam_groups diversity_penalty early_stopping bad_words_ids
    num_return_sequences output_scores return_dict_in_generate forced_bos_token_id
    forced_eos_token_id remove_invalid_values exponential_decay_length_penalty
    suppress_tokens begin_suppress_tokens
    """
)

# Keys that are harmless only with these values; with any other the model is another one.
HARMLESS_VALUES: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "pretraining_tp": (1, None),
    "partial_rotary_factor": (1, None),
    "rope_interleaved": (False, None),
    "qk_layernorm": (False, None),
    "use_qk_norm": (False, None),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "quantization_config": (None,),
    "compression_config": (None,),
    "original_max_position_embeddings": (None,),
    "per_layer_config": (None,),
    "use_bidirectional_attention": (False, None),
    "num_experts": (0, None),
    "num_local_experts": (0, None),
    "is_decoder": (True, False, None),
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False, None),
    "chunk_size_feed_forward": (0, None),
    "torchscript": (False, None),
    "pruned_heads": ({}, None),
    "no_rope_layers": (None, []),
}
