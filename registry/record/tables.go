package record

// OfCatalogue reports whether a row belongs to one of the small public tables that
// every decision reads: institutions and their standing, keys, nodes, members, datasets,
// offerings, authorizations, subscriptions. A prefix of such rows counts likewise. What is kept
// of persons, and history, does not.
func OfCatalogue(key []byte) bool {
	if len(key) == 0 {
		return false
	}
	switch key[0] {
	case tabInstitution, tabSuspended, tabKey, tabKeyIndex, tabNode, tabMembers,
		tabDataset, tabOffering, tabAuthorization, tabRevoked, tabGrantIndex, tabSubscription:
		return true
	}
	return false
}

// OfAuthors reports whether a row is one that commands read again and again, as those of
// the same author do, and that is small: the catalogue's, heads of chains, and what names and
// qualities are known by. What a command writes for itself, and rows of subjects, are not.
func OfAuthors(key []byte) bool {
	if len(key) == 0 {
		return false
	}
	switch key[0] {
	case tabHead, tabGroup, tabLevel, tabCounts, tabIntern, tabInternNext, tabQualities:
		return true
	}
	return OfCatalogue(key)
}

// OfPublic reports whether a row belongs to one of the tables that follow from the genesis
// file and the public chain alone, so that every node holds all of it: members, and all
// who follow. A watcher compares these with the members'.
func OfPublic(key []byte) bool {
	if len(key) == 0 {
		return false
	}
	switch key[0] {
	case tabRules, tabProvider, tabPublic, tabPast:
		return true
	}
	return OfCatalogue(key)
}

// tabStateHash keeps the hash of all other tables; see package store.
const tabStateHash byte = 'H'

// StateHashKey gives the key of a row of the table that a store keeps its state hash in.
func StateHashKey(kind byte, rest ...byte) []byte { return append([]byte{tabStateHash, kind}, rest...) }

// Hashed reports whether a row belongs to what replicas must hold alike at the same index:
// all rows but the index itself, which stands apart, and the hash.
func Hashed(key []byte) bool {
	return len(key) > 0 && key[0] != tabStateHash && key[0] != tabApplied
}

// OfIndex reports whether a row is the applied index.
func OfIndex(key []byte) bool { return len(key) == 1 && key[0] == tabApplied }

// OfDirectory reports whether a row holds the references of one subject: the one table
// that grows to the size of a country.
func OfDirectory(key []byte) bool { return len(key) > 0 && key[0] == tabReferences }

// DirectoryPrefix begins the keys of which OfDirectory is true, and no others.
func DirectoryPrefix() []byte { return []byte{tabReferences} }

// OfHistory reports whether a row says what became of one subject's number. Every decision on
// a subject asks for it, and there is none for most.
func OfHistory(key []byte) bool { return len(key) > 0 && key[0] == tabNumber }

// HistoryPrefix begins the keys of which OfHistory is true, and no others.
func HistoryPrefix() []byte { return []byte{tabNumber} }
