"""What the numbers of a search leave out: what no format reaches, what is not counted, what rows change."""

from paretobit.doctor.base import Finding, Patient


def formats_reach_the_model(patient: Patient) -> Finding:
    """Nothing stays in float but what was asked to."""
    covered = patient.session.coverage
    if patient.space.reached() is None:
        return Finding("not applicable", "the space gives no formats")
    evidence = {"left": covered.to_json()["left"]}
    if covered.in_float:
        return Finding("warn", covered.in_float, evidence)
    return Finding("ok", "nothing stays in float unasked", evidence)


def costs_hold_all_operations(patient: Patient) -> Finding:
    """Every operation of the graph is counted."""
    covered, graph = patient.session.coverage, patient.evidence.graph
    if graph.batch is None:
        return Finding("not applicable", "nothing ran: costs need example inputs")
    evidence = {"uncounted": dict(covered.uncounted)}
    if covered.not_counted:
        return Finding("warn", covered.not_counted, evidence)
    return Finding("ok", f"all of {sum(node.is_call for node in graph)} operations are counted", evidence)


def rows_change_nothing(patient: Patient) -> Finding:
    """One row calls what several call, and costs its share of them."""
    graph = patient.evidence.graph
    if graph.batch is None:
        return Finding("not applicable", "nothing ran")
    evidence = {"rows": graph.batch, "notices": list(graph.notices)}
    if graph.notices:
        return Finding("warn", "; ".join(graph.notices), evidence)
    if graph.batch == 1:
        return Finding("not applicable", "the graph is that of one row", evidence)
    return Finding("ok", f"one row calls what {graph.batch} call, and costs its share", evidence)
