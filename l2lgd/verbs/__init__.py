"""One module a verb: from a composed config to the files of a run."""
