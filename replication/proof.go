package replication

import "fmt"

// proof reports whether best is certain to have every transaction that was ever acknowledged, and why (not).
//
// There are four ways to be certain:
//
//   - The old primary answers and takes no writes, it has what it had when it was last seen, and best has all of that.
//   - All members answer, nobody saw a primary, and best has all that anybody has. None is empty in the place of one that
//     had data; under Durability one may be, since it cannot have acknowledged anything alone.
//   - The same under Durability, but a single member has transactions of its own. Nobody acknowledged them: acknowledged
//     is what is on two servers, and no earlier promotion left out anything acknowledged either.
//   - Acknowledgement was semi-synchronous: what was acknowledged since then is on the primary and at least one more
//     server. One acknowledgement is enough for the primary, so every single follower may be the only one that has a
//     certain transaction. So best must have all that every follower has, and all of them must be seen. One that cannot
//     be seen is excused if it was dead at a time when the primary was still seen, and stayed so: what it alone had
//     acknowledged before is then part of what the primary had at that time (the doubt's mark), and best must have that.
//     The same holds for one that started again, since it may have lost what it had received and not applied, and for
//     one whose machine has been replaced. What the primary had at the first look that saw semi-sync on (the mark)
//     best must have too: that is not less than what was committed without it.
//
// A Manager that has not seen the primary itself knows that acknowledgement was semi-synchronous if a follower says that
// it has been asked to acknowledge: whatever came before that transaction the follower has too.
func (d *decider) proof(l lost, best *fact, complete bool) (bool, string) {
	pos := best.status().Received
	var more []*fact // members that have what best lacks, but for errant transactions and what a recovery has left behind
	for _, f := range d.members {
		n, _ := d.c.Engine.Count(f.status().Received, pos)
		if d.counts(f) && n > f.errant && !d.leftBehind(f) {
			more = append(more, f)
		}
	}
	gone := 0 // servers that may have been in the place of an empty one, or of one that is no member any more
	for _, f := range d.members {
		if d.counts(f) && f.status().Empty {
			gone++
		}
	}
	if l.addr != "" && l.fact == nil {
		gone = max(gone, 1)
	}
	semisync := d.c.Policy == Durability && d.expected > 1
	if !l.warm && complete && len(more) == 1 && gone == 0 && semisync {
		return true, fmt.Sprintf("all members answer, and what it lacks is on %s alone, so that nobody acknowledged it", more[0].ID)
	}
	for _, f := range more {
		if f != l.fact {
			return false, fmt.Sprintf("%s has transactions that %s lacks", f.ID, best.ID)
		}
	}
	if p := l.fact; p != nil && p.answers() {
		had := p.status().Received
		if l.warm && d.contains(pos, had) && d.contains(had, d.position) {
			return true, fmt.Sprintf("%s answers, and %s has all that it has", p.ID, best.ID)
		}
	}
	if !l.warm && complete && len(more) == 0 && (gone == 0 || gone == 1 && semisync) {
		return true, "all members answer, and it has all that they have"
	}
	if why := d.unproven(l, best); why != "" {
		return false, why
	}
	return true, "writes were acknowledged by a replica, and it has all that every replica has"
}

// unproven says why semi-synchronous replication does not prove that best has everything, or nothing if it does.
func (d *decider) unproven(l lost, best *fact) string {
	pos := best.status().Received
	acked := false
	for _, f := range d.members {
		if d.counts(f) && f != l.fact {
			acked = acked || f.status().Acked
			if !l.warm && f.status().Empty {
				return f.ID + " is empty, and what it or its predecessor acknowledged is not known"
			}
		}
	}
	switch {
	case l.addr == "":
		return "it is not known who was the primary"
	case l.warm && !(d.sync.on && d.contains(pos, d.sync.mark)):
		return l.name + " acknowledged transactions that no replica may have"
	case !l.warm && !acked:
		return "no replica is known to have acknowledged transactions"
	}
	there := len(d.members)
	if l.warm && l.fact == nil {
		there++ // the lost primary itself has been taken off the list
	}
	if there < d.expected {
		return fmt.Sprintf("only %d of %d members are there", there, d.expected)
	}
	seen := map[key]bool{}
	for _, f := range d.members {
		k := keyOf(f.Member)
		seen[k] = true
		if f == l.fact || f == best && d.doubts[k] == (doubt{}) {
			continue
		}
		follower := !l.warm || d.followers[k]
		if !follower {
			continue
		}
		excused := false
		if doubt, ok := d.doubts[k]; ok {
			excused = doubt.marked && d.contains(pos, doubt.mark)
			if d.counts(f) && !excused {
				return f.ID + " has started again and may have lost what it had received"
			}
		}
		if !d.counts(f) && !(excused && (f.stopped || d.ended[f.Machine] || f.misses > 0 && f.refusing)) {
			return f.ID + " cannot be seen and may be the only one that has some acknowledged transaction"
		}
	}
	for k, doubt := range d.doubts {
		if !seen[k] && k != d.primary && !(doubt.marked && d.contains(pos, doubt.mark)) {
			return k.id + " is gone and may have been the only one that had some acknowledged transaction"
		}
	}
	return ""
}

// transactions puts a count into words.
func transactions(n uint64, exact bool) string {
	least := ""
	if !exact {
		least = "at least "
	}
	if n == 1 {
		return least + "1 transaction"
	}
	return fmt.Sprintf("%s%d transactions", least, n)
}
