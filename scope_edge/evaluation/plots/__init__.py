"""An evaluation as pictures (matplotlib, extra `plots`), and its cost curve as text for a terminal (nothing needed).

curve.py       accuracy for cost      portfolio.py   which model is chosen at which alpha
reliability.py probabilities: predicted against observed      adaptation.py  what anchors are worth
canvas.py      what a picture is, the look, SVG and PNG      names.py   names, shares and dollars as they are shown
writing.py     all files of a folder      text.py   the terminal's version
"""
