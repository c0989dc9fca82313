package record

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// maxSubscriptions bounds the purposes for which one institution subscribes to one
// dataset, ever: each is looked at for every change of it.
const maxSubscriptions = 16

// setSubscription writes what an institution wants sent to it. Whether it may have it
// is another table's business, and looked up each time.
func (a *applier) setSubscription(s *registrypb.Subscription) error {
	if s.Institution != a.author {
		return refuse("the subscription is another institution's")
	}
	fields, err := a.dataset(s.Dataset)
	if err != nil {
		return err
	}
	if err := valid(names.Purpose(s.Purpose).Validate()); err != nil {
		return err
	}
	if err := cmp.Or(
		checkList[names.Quality]("qualities of the subscription", s.Qualities, 1, maxList),
		checkList[names.FieldName]("fields of the subscription", s.Fields, 0, maxFields)); err != nil {
		return err
	}
	for _, f := range s.Fields {
		if !slices.Contains(fields, names.FieldName(f)) {
			return refuse("dataset %s has no field %s", s.Dataset, f)
		}
	}
	if err := checkPeriod(s.Period); err != nil {
		return refuse("subscription: %v", err)
	}
	was, err := a.view.Subscription(names.DatasetID(s.Dataset), names.InstitutionID(a.author), names.Purpose(s.Purpose))
	switch {
	case err != nil:
		return err
	case was == nil && s.Withdrawn:
		return refuse("there is no subscription to %s for %s to withdraw", s.Dataset, s.Purpose)
	case was == nil:
		if err := a.roomToSubscribe(s); err != nil {
			return err
		}
	default:
		a.removes = narrows(was, s)
	}
	return a.Set(subscriptionKey(s.Dataset, s.Institution, s.Purpose), bytes.Clone(a.body))
}

func (a *applier) roomToSubscribe(s *registrypb.Subscription) error {
	n := 0
	err := a.view.scan(under(tabSubscription, s.Dataset, s.Institution), func(_, _ []byte) error {
		n++
		return nil
	})
	if err == nil && n >= maxSubscriptions {
		return refuse("%s has subscribed to %s for %d purposes, and may do so for no other", s.Institution, s.Dataset, n)
	}
	return err
}

// narrows reports whether less is to be sent than before. Whoever withdraws wants to
// know from when on nothing comes any more, as with a right that is taken away.
func narrows(was, is *registrypb.Subscription) bool {
	gone := func(had, has []string) bool {
		return slices.ContainsFunc(had, func(s string) bool { return !slices.Contains(has, s) })
	}
	switch {
	case was.Withdrawn:
		return false
	case is.Withdrawn, gone(was.Qualities, is.Qualities),
		is.Period.From > was.Period.From, is.Period.Until < was.Period.Until:
		return true
	}
	return len(is.Fields) > 0 && (len(was.Fields) == 0 || gone(was.Fields, is.Fields))
}

func subscriptionKey(dataset, institution, purpose string) []byte {
	return key(tabSubscription, dataset, institution, purpose)
}

// Subscription gives an institution's subscription to a dataset for a purpose, also a
// withdrawn one.
func (v View) Subscription(d names.DatasetID, i names.InstitutionID, p names.Purpose) (*registrypb.Subscription, error) {
	s := new(registrypb.Subscription)
	ok, err := v.message(subscriptionKey(string(d), string(i), string(p)), s)
	if err != nil || !ok {
		return nil, err
	}
	return s, nil
}

// Subscriptions calls fn with every subscription, withdrawn ones too, in order of
// dataset, institution and purpose.
func (v View) Subscriptions(fn func(*registrypb.Subscription) error) error {
	return v.subscriptions([]byte{tabSubscription}, fn)
}

// SubscriptionsTo gives the subscriptions to one dataset, withdrawn ones too, in order
// of institution and purpose.
func (v View) SubscriptionsTo(d names.DatasetID) (all []*registrypb.Subscription, err error) {
	err = v.subscriptions(under(tabSubscription, string(d)), func(s *registrypb.Subscription) error {
		all = append(all, s)
		return nil
	})
	return all, err
}

func (v View) subscriptions(prefix []byte, fn func(*registrypb.Subscription) error) error {
	return v.scan(prefix, func(_, b []byte) error {
		s := new(registrypb.Subscription)
		if err := decodeRow(b, s); err != nil {
			return err
		}
		return fn(s)
	})
}
