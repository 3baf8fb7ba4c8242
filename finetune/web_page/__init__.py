"""The page of `finetune/web.py`: the Gradio app (`page_app.py`) and the HTML of a prediction (`view.py`)."""
