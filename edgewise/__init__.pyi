from .data.dataset import load_dataset as load_dataset
from .data.doctor import examine as examine
from .deploy.export import export as export
from .deploy.predict import predict as predict
from .deploy.verify import verify as verify
from .errors import EdgewiseError as EdgewiseError
from .errors import UsageError as UsageError
from .families import list_models as list_models
from .lessons.explain import explain as explain
from .measure.count import count as count
from .measure.latency import benchmark as benchmark
from .measure.profile import profile as profile
from .network import Network as Network
from .network import build as build
from .reporting.write import report as report
from .run_folder import Run as Run
from .spec import Spec as Spec
from .table import Row as Row
from .table import scale as scale
from .training.evaluate import evaluate as evaluate
from .training.loop import train as train
from .training.recipe import Recipe as Recipe
from .weights.create import create_model as create_model
from .weights.folder import load_model as load_model
from .weights.folder import save_model as save_model
from .weights.importing import import_weights as import_weights

__version__: str
