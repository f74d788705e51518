"""Files, clips, views and pairs; nothing of models or statistics."""

from configs.lazy import lazy_face

# what lists and writes videos does without torch, which takes seconds to load
__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "clips": "Clip ClipList list_clips parse_styles",
        "davis": "DavisClips list_davis",
        "flow_batches": "FlowBatches flow_inputs",
        "loader": "ViewBatches preprocess to_inputs",
        "transfer": "on_device",
        "views": "make_views",
    },
)
