"""`decentral export RUN`: one model file out of a run."""

from pathlib import Path
from typing import Annotated

import typer

from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson, From

HELP = """Write one model of a run as a safetensors file: of a finished run, or of its newest checkpoint.

The file holds parameters and buffers under the module's own names, and says in its metadata which run, round and model
it is. To load it:

```python
from safetensors.torch import load_file

model = my_module.build()  # the module that was trained
model.load_state_dict(load_file("model.safetensors"))
```
"""


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN", show_default=False)],
    model: Annotated[
        str,
        typer.Option(metavar="average|node=N|best", help="The mean model, one node's, or the best node's."),
    ] = "average",
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The file to write.")] = Path(
        "model.safetensors"
    ),
    from_: From = None,
    json: AsJson = False,
) -> None:
    from decentral.measure.export import exported, source, write_model

    tensors, about = exported(source(run, from_), model)
    write_model(output, tensors, about)
    document = {"file": str(output), **about, "numbers": sum(tensor.numel() for tensor in tensors.values())}
    if json:
        print_json(document)
    else:
        which = f"node {about['node']}" if "node" in about else f"the average of {about['nodes']} nodes"
        stdout().print(f"{output}: {about['experiment']} after round {about['round']}, {which}")
