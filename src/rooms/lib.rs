//! Rooms: input, graph, state, timeline, membership, relations, directory, history visibility.
