// Package arch holds the house to its plan: which package stands on which floor, who may import the graph engine, and
// how long a file and a function may be. It has tests only; the plan is the table in arch_test.go.
package arch
