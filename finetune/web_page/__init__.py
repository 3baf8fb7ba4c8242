"""The page of `finetune/web.py`: what it shows (`marks.py`, `chart.py`, `browsing.py`) and how it hangs together (`page_app.py`)."""
