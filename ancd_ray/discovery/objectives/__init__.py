"""Trained methods, one module each: AnomalyNCD, and published ones on the same regions, views, trunk and loop.

`discovery.method` names an entry of `OBJECTIVES`. Each module has its formula and says what differs from the original.
"""

from __future__ import annotations

from ancd_ray.discovery.objectives.amend import AMEND
from ancd_ray.discovery.objectives.anomalyncd import AnomalyNCD
from ancd_ray.discovery.objectives.base import Objective
from ancd_ray.discovery.objectives.gatcluster import GATCluster
from ancd_ray.discovery.objectives.gcd import GCD
from ancd_ray.discovery.objectives.iic import IIC
from ancd_ray.discovery.objectives.scan import SCAN
from ancd_ray.discovery.objectives.simgcd import SimGCD
from ancd_ray.discovery.objectives.uno import UNO

OBJECTIVES: dict[str, type[Objective]] = {
    "anomalyncd": AnomalyNCD,
    "iic": IIC,
    "gatcluster": GATCluster,
    "scan": SCAN,
    "uno": UNO,
    "gcd": GCD,
    "simgcd": SimGCD,
    "amend": AMEND,
}
