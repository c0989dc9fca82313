// Package reading is who may read journals beyond the parties of an exchange: the
// subject, the institution's security officer, and the committee.
//
//	subject     what concerns it, wherever it lies, against an identity provider's token
//	officer     what the users he oversees did, at this node
//	committee   what an inspection order names, signed by M of N of its keys
//
// Every reading is journaled, also one that is refused, and before anything is
// answered: at the node that is asked by a person, and at every node that it asks.
//
// # A subject
//
// The subject's application asks for a challenge (Nonce), has the provider make a
// token for exactly that, and shows it (Subject). The node then asks the others,
// with the token itself:
//
//	first    the registry members: they cleared, and know who holds a file
//	then     the holders, and whoever the members' records name
//
// No node believes another. Each verifies the token by itself, and that it was made
// out to the node that shows it (ServeSubject); what it gives is the journal entry
// without what is others' or the institution's own (SubjectRecord). No node holds
// it all: the asking one joins the records for its answer, and keeps nothing.
// Nodes that did not answer are named.
//
// A nonce is kept in memory only. It must be known to be used, and is forgotten by
// being used, so a restart can make a token worthless but never usable twice.
//
// # The committee
//
// An order (InspectionOrder) names one ticket, one subject, or one institution and
// period, who may execute it, and until when. It is executed by showing it to every
// node that can know (Inspect, ServeInspect), and each verifies it by itself.
// Entries are shown whole, with what proves them, and joined into stories.
//
// # Refusals
//
// Whoever has no right is told ErrNoRight, whatever the cause and before any journal
// is searched: the refusal cannot depend on what there is to be found. The cause
// stands in the journal.
package reading
