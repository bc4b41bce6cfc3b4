"""All probes of this package, in the order in which they are shown."""

from infra.doctor.check import Probe
from infra.doctor.dask_scheduler import look_at_dask
from infra.doctor.house import look_at_services
from infra.doctor.machine import GPU_SECONDS, look_at_gpu, look_at_machine
from infra.doctor.mlflow_server import look_at_mlflow
from infra.doctor.packages import look_at_packages
from infra.doctor.prefect_server import look_at_prefect
from infra.doctor.storage import look_at_lake

PROBES = (
    Probe("machine", look_at_machine, essential=True),
    Probe("GPU", look_at_gpu, GPU_SECONDS),
    Probe("packages", look_at_packages, essential=True),
    Probe("lake", look_at_lake, 20, essential=True),
    Probe("Prefect", look_at_prefect, essential=True),
    Probe("Dask", look_at_dask, 20, essential=True),
    Probe("MLflow", look_at_mlflow),
    Probe("services", look_at_services),
)
