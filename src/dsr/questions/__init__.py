"""Multiple-choice questions with derived answers: scene -> candidates -> quartets -> rows.

Letters: E entities (0 the camera, then the tracks), T frames, S ensemble members (0 the cues as they are),
K candidate questions, M moments at which an interval is described, A axes of a state (1, or 3 for directions).
"""
