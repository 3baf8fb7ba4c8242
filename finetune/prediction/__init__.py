"""Prediction: the model (`sentiment_model.py`), its folder and recipe, and predictions as data, tables, files and charts."""
