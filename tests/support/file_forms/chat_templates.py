"""Chat templates with thoughts and tools, each in the manner of a family of models."""

# Qwen3: thoughts are shown after the last question alone; tools as <tool_call> and <tool_response>
THINKS = """
{%- if tools %}<|im_start|>system
{{ messages[0].content + '\n' if messages[0].role == 'system' else '' }}<tools>
{%- for tool in tools %}
{{ tool | tojson }}{%- endfor %}
</tools><|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for m in messages %}
{%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}
{%- elif m.role == 'assistant' %}
{%- set content = m.content %}{%- set thought = '' %}
{%- if m.reasoning_content is string %}{%- set thought = m.reasoning_content %}
{%- elif '</think>' in content %}
{%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\n') %}
{%- endif %}
{{- '<|im_start|>assistant\n' }}
{%- if loop.index0 > ns.last and (loop.last or thought) %}
{{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
{%- else %}{{- content }}{%- endif %}
{%- for call in m.tool_calls or [] %}
{%- if (loop.first and content) or not loop.first %}{{- '\n' }}{%- endif %}
{{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{- '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- elif m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
{{- '<|im_start|>user' }}{%- endif %}
{{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}
{%- endif %}{%- endif %}""".lstrip("\n")

# Llama 3.1: what a tool says is quoted, one call a turn, its name told to the result
QUOTES = """
{%- for m in messages %}
{%- if m.tool_calls %}{{- '<|start|>assistant<|end|>{"name": "' + m.tool_calls[0].function.name }}
{{- '", "parameters": ' + (m.tool_calls[0].function.arguments | tojson) + '}<|eot|>' }}
{%- elif m.role == 'tool' %}{{- '<|start|>ipython ' + m.name + ' ' + (m.tool_call_id or '') }}
{{- '<|end|>' + (m.content | tojson) + '<|eot|>' }}
{%- else %}{{- '<|start|>' + m.role + '<|end|>' + m.content | trim + '<|eot|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant<|end|>' }}{%- endif %}""".lstrip("\n")

# DeepSeek R1: the prompt opens the thought; earlier thoughts are cut; arguments are joined as text
OPENS = """
{%- for m in messages %}
{%- if m.role == 'user' %}{{- '<U>' + m.content }}{%- endif %}
{%- if m.role == 'assistant' %}{{- '<A>' + m.content.split('</think>')[-1] }}
{%- for call in m.tool_calls or [] %}
{{- '<call>' + call.function.name + '\n' + call.function.arguments + '</call>' }}{%- endfor %}
{{- '<end>' }}{%- endif %}
{%- if m.role == 'tool' %}{{- '<result>' + m.content + '</result>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<A><think>\n' }}{%- endif %}""".lstrip("\n")
