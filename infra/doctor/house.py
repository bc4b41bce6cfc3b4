"""What `meddiff up` started on this machine, by its record: still alive, and answering."""

from collections.abc import Iterator

from infra.doctor.answer import NoAnswerError, answer
from infra.doctor.check import Check
from infra.processes import Service, recorded
from infra.settings import Settings

WHAT = "services"
UP_AGAIN = "run meddiff up: it ends the rest and starts all anew"


def look_at_services(settings: Settings) -> Iterator[Check]:
    """One finding for all that run, and one for every other."""
    services = recorded(settings.home)
    broken = {service.name: fault for service in services if (fault := _fault(service))}
    well = [f"{service.name} {service.address}" for service in services if service.name not in broken]
    yield Check(what=WHAT, status="ok", found=", ".join(well) or "none runs (meddiff up starts them)")
    for name, fault in broken.items():
        yield Check(what=WHAT, status="warning", found=f"{name} {fault}", remedy=UP_AGAIN)


def _fault(service: Service) -> str:
    if not service.alive:
        return f"ended; its log is {service.log}"
    if service.name == "worker":  # it answers nobody; the server says whether it hears of it
        return ""
    try:
        answer(f"{service.address}/health")
    except NoAnswerError as error:
        return f"at {service.address} {error}; its log is {service.log}"
    return ""
