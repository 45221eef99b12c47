"""What a server predicts with: compiled code where it gives the bits it must, or else NumPy, said once."""

from contextlib import closing

import numpy as np
from mlpd.core.models.predictor import CompiledPredictor, Predictor
from mlpd.core.network.architecture import ModelSpec
from mlpd.server.inference.serving import Serving
from mlpd.server.storage.artifacts import DataDirectory
from mlpd.server.storage.stored_files import StoredFiles
from structlog.testing import capture_logs

from ..conftest import needs_compiler
from ..core.family import model_of

MODEL = model_of(ModelSpec.plain((4, 6, 3)))
ROWS = np.arange(20, dtype=np.float32).reshape(5, 4) / 20


@needs_compiler
def test_predictions_are_compiled_where_that_can_be_and_made_with_numpy_elsewhere(tmp_path, monkeypatch):
    with closing(DataDirectory(tmp_path / "data")) as directory:
        serving = Serving(StoredFiles(directory), tmp_path / "kernels", 10**9)
        compiled = serving._open(MODEL, 16)
        assert isinstance(compiled, CompiledPredictor)
        serving.close()
        monkeypatch.setattr("mlpd.core.execution.verification.ARITHMETIC", "what another processor computes")
        serving = Serving(StoredFiles(directory), tmp_path / "others", 10**9)
        with capture_logs() as logs:
            plain = [serving._open(MODEL, 16) for _ in range(2)]
        serving.close()
    assert [type(predictor) for predictor in plain] == [Predictor, Predictor]
    (line,) = logs
    assert line["event"] == "predictions are made with NumPy"
    assert "must compute what another" in line["reason"]
    for own, its in zip(plain[0].predict(ROWS), compiled.predict(ROWS), strict=True):
        np.testing.assert_allclose(own, its, rtol=1e-5, atol=1e-6)
