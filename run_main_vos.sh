#!/usr/bin/env bash
# The sweep over video object segmentation networks.
echo "not available yet: video object segmentation networks are not built yet" >&2
exit 2
