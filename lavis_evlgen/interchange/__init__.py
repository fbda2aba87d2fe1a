"""Models as folders that Hugging Face's users know: safetensors, config.json, preprocessor_config.json, a card."""
