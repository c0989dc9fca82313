// Package belgium is the person directory of a whole country, made up: its institutions,
// its 15.57 million numbers and the 124.9 million references on them, deterministic and
// made on the fly, and the benchmark that loads them into three registry members through
// the signed, replicated path and measures what comes after (Run).
//
// Nothing in it is true of anybody. What is modelled is what a database feels: how many
// institutions there are and how unequal they are, how many subjects each knows and how
// those lie in the space of numbers, how long a row grows, in which order rows come.
//
// A person is a place in the order of numbers, from 0; Number gives the number of one in
// constant time. An institution knows every k-th of them, by chance within each k; so its
// references can be made from any place on, in order of number, without the others'.
package belgium
