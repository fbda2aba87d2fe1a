"""Processors of tiny models, as a model type's yaml names them."""

PREPROCESS = {
    "vis_processor": {"eval": {"name": "blip_image_eval", "image_size": 56}},
    "text_processor": {"eval": {"name": "blip_caption"}},
}
