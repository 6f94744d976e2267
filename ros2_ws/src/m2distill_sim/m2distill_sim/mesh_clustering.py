"""Fewer faces for meshes that are only drawn, by vertex clustering (Rossignac and Borrel, 1993).

LIBERO's scanned objects and the arm have many faces smaller than a pixel, and a software renderer takes time for each.
"""

import numpy as np

from m2distill_sim.renderer import mujoco

CELL_M = 0.003  # a pixel of a 128 px agentview image is about twice as wide on the table


def cluster_visual_meshes(model: mujoco.MjModel, cell_m: float = CELL_M) -> None:
    """Join the vertices within each cube of side `cell_m`, and drop the faces that become lines or points.

    Meshes of geoms that collide remain as they are, and so does physics. Normals and texture coordinates of the corners
    remain too. A renderer uploads the meshes when it is created, so call this before.
    """
    is_mesh = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    collides = is_mesh & ((model.geom_contype != 0) | (model.geom_conaffinity != 0))
    for mesh in sorted(set(model.geom_dataid[is_mesh]) - set(model.geom_dataid[collides])):
        start, number = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        vertices = model.mesh_vert[start : start + number]
        joined, cluster = _joined(vertices, cell_m)
        start, number = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        faces = cluster[model.mesh_face[start : start + number]]
        kept = np.flatnonzero((faces != np.roll(faces, 1, axis=1)).all(axis=1))
        if not len(kept):  # smaller than a cell
            continue
        vertices[:] = joined
        model.mesh_face[start : start + len(kept)] = faces[kept]
        for corners in (model.mesh_facenormal, model.mesh_facetexcoord):
            if len(corners):
                corners[start : start + len(kept)] = corners[start + kept]
        model.mesh_facenum[mesh] = len(kept)


def _joined(vertices_V3: np.ndarray, cell_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices at the means of their cells, and the number (V,) of the first vertex of each one's cell."""
    cells_V3 = np.floor(vertices_V3 / cell_m).astype(np.int64)
    cells_V3 -= cells_V3.min(axis=0)
    keys_V = np.ravel_multi_index(tuple(cells_V3.T), tuple(cells_V3.max(axis=0) + 1))
    _, first_C, cell_V, count_C = np.unique(keys_V, return_index=True, return_inverse=True, return_counts=True)
    means_C3 = np.stack([np.bincount(cell_V, axis) for axis in vertices_V3.T], axis=1) / count_C[:, None]
    return means_C3[cell_V], first_C[cell_V]
