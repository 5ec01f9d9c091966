"""An evaluation as pictures (matplotlib, extra `plots`) and as text for a terminal (nothing needed).

picture.py     what a picture is: headline, caption, its numbers, how it is drawn
curve.py       accuracy for cost      portfolio.py   who is chosen at which alpha      tuned.py   foreseen and come
reliability.py probabilities, lengths.py lengths, fields.py abilities: predicted against observed
adaptation.py  what anchors are worth      evidence.py   what the word evidence is worth
canvas.py      the look, SVG and PNG      labels.py   names that do not cover each other      palette.py   colours
cost_scale.py  a cost axis that has room for free      names.py   names, shares and dollars as they are shown
page.py        index.html      writing.py   all files of a folder
text.py        the terminal's version      text_curve.py   its curve
"""
