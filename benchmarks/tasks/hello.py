"""The smallest Gradio app: what a first page costs at least."""

from __future__ import annotations

import sys

import gradio as gr

with gr.Blocks() as page:
    gr.Markdown("Hello, world!")
page.launch(server_port=int(sys.argv[1]), ssr_mode=False)
