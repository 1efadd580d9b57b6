"""Catalogues, joined to impressions as of their arrival (A1 to A4).

- `feed`: where the partitions of a labeler read catalogues
- `joined`: what impressions are given of all catalogues
- `of_partition`: what one partition needs of them, and when
- `versions`: the rows of one catalogue, as of one time and later ones
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from labeler.catalogues.feed import CatalogueFeed
    from labeler.catalogues.joined import JoinedCatalogues
    from labeler.catalogues.of_partition import PartitionCatalogues
    from labeler.catalogues.versions import CatalogueBegin, RowVersions
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "CatalogueBegin",
    "CatalogueFeed",
    "JoinedCatalogues",
    "PartitionCatalogues",
    "RowVersions",
]
