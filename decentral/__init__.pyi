from decentral.wrapping.face import evaluate_averaged as evaluate_averaged
from decentral.wrapping.face import init as init
from decentral.wrapping.face import load_state_dict as load_state_dict
from decentral.wrapping.face import rank as rank
from decentral.wrapping.face import shutdown as shutdown
from decentral.wrapping.face import size as size
from decentral.wrapping.face import state_dict as state_dict
from decentral.wrapping.face import wrap as wrap

__version__: str
