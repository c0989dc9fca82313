package record

// OfCatalogue reports whether a row belongs to one of the small public tables that
// every decision reads: institutions and their standing, keys, nodes, members, datasets,
// offerings, authorizations. A prefix of such rows counts likewise. What is kept
// of persons, and history, does not.
func OfCatalogue(key []byte) bool {
	if len(key) == 0 {
		return false
	}
	switch key[0] {
	case tabInstitution, tabSuspended, tabKey, tabKeyIndex, tabNode, tabMembers,
		tabDataset, tabOffering, tabAuthorization, tabRevoked, tabGrantIndex:
		return true
	}
	return false
}
