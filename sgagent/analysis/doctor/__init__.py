"""What on a host can bypass, break or be broken by the policy: from typed facts to findings."""
