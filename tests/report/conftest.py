from tests.small_project import coarse_pictures, project

__all__ = ["coarse_pictures", "project"]
