"""The script that Streamlit runs, apart from the pages that it draws."""
