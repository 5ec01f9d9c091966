"""A model card of an estimator, as the hub has it."""

from __future__ import annotations

EXACT = """### Task
Say how the model will do.

### Target Model
{{model}}

{{#example}}
Example {{number}}:
Question: {{example_question}}
Performance: {len: {{length}}, correct: {{correct}}}

{{/example}}
### Target Question
{{question}}

### Output Format (STRICT)
Predicted Performance: {len: [integer], correct: [yes/no]}

### Output:
"""
CARD = f"""---
license: apache-2.0
---
# An estimator

```text
{EXACT.replace("{{model}}", "{model_name}").replace("{{question}}", "{question}").split("{{#example}}")[0]}Example 1:
Question: What is one plus one?
Performance: {{len: 12, correct: yes}}

### Target Question
{{question}}

### Output Format (STRICT)
Predicted Performance: {{len: [integer], correct: [yes/no]}}

### Output:
```
"""
