package data

// The lists that names and places are drawn from. The cities exist; nobody in
// them does here.

var cities = []City{
	{"ghent", "Ghent", "9000", "flanders", 30},
	{"antwerp", "Antwerp", "2000", "flanders", 8},
	{"liege", "Liege", "4000", "wallonia", 8},
	{"brussels", "Brussels", "1000", "brussels", 8},
	{"charleroi", "Charleroi", "6000", "wallonia", 7},
	{"bruges", "Bruges", "8000", "flanders", 5},
	{"namur", "Namur", "5000", "wallonia", 5},
	{"leuven", "Leuven", "3000", "flanders", 4},
	{"mons", "Mons", "7000", "wallonia", 4},
	{"mechelen", "Mechelen", "2800", "flanders", 4},
	{"aalst", "Aalst", "9300", "flanders", 4},
	{"hasselt", "Hasselt", "3500", "flanders", 3},
	{"kortrijk", "Kortrijk", "8500", "flanders", 3},
	{"tournai", "Tournai", "7500", "wallonia", 3},
	{"arlon", "Arlon", "6700", "wallonia", 2},
	{"wavre", "Wavre", "1300", "wallonia", 2},
}

var firstNames = map[Sex][]string{
	Female: {
		"Amelie", "An", "Anke", "Aya", "Beatrijs", "Chloe", "Clara", "Elise", "Emma", "Fatima", "Femke", "Fien", "Greet",
		"Hanne", "Helena", "Ines", "Jeanne", "Julie", "Katrien", "Laura", "Lena", "Lieve", "Louise", "Lucie", "Manon", "Maria",
		"Marthe", "Mila", "Nadia", "Nina", "Noor", "Olivia", "Pauline", "Rita", "Sara", "Sofie", "Tine", "Veerle", "Yasmine", "Zoe",
	},
	Male: {
		"Adam", "Alain", "Arthur", "Bart", "Benoit", "Bram", "Cedric", "Daan", "David", "Dirk", "Emiel", "Ewout", "Filip",
		"Gilles", "Hamza", "Hugo", "Ibrahim", "Jan", "Jef", "Jeroen", "Jonas", "Karel", "Kobe", "Liam", "Louis", "Luc", "Lucas",
		"Marc", "Mathis", "Milan", "Nathan", "Noah", "Pieter", "Quinten", "Robin", "Simon", "Thomas", "Victor", "Wout", "Yves",
	},
}

var lastNames = []string{
	"Achterberg", "Allard", "Baeyens", "Benali", "Bogaert", "Brasseur", "Callens", "Carlier", "Claes", "Collard", "Cools",
	"Daems", "Declercq", "Delvaux", "Devos", "Dierickx", "Dubois", "Dumont", "El Amrani", "Fontaine", "Geerts", "Gillet",
	"Goossens", "Hendrickx", "Henrard", "Hermans", "Ioannou", "Jacobs", "Janssens", "Kowalska", "Lambert", "Lemaire",
	"Leroy", "Lievens", "Maes", "Marchal", "Mertens", "Michiels", "Nijs", "Noel", "Ottevaere", "Peeters", "Petit", "Pirard",
	"Popescu", "Quintens", "Raes", "Renard", "Rossi", "Saelens", "Segers", "Servais", "Silva", "Smets", "Thijs", "Urbain",
	"Van Acker", "Van den Berghe", "Vermeulen", "Wauters", "Willems", "Yildiz", "Zeghers",
}

var streets = []string{
	"Acacialaan", "Beekstraat", "Berkenlaan", "Bosstraat", "Brugstraat", "Dorpsstraat", "Eikenlaan", "Fonteinstraat",
	"Groenstraat", "Hoogstraat", "Kanaalkaai", "Kapelstraat", "Kerkplein", "Korenmarkt", "Lindelaan", "Molenweg", "Nieuwstraat",
	"Parklaan", "Place du Marche", "Rue Basse", "Rue de la Fontaine", "Rue de la Gare", "Rue des Ecoles", "Rue des Tilleuls",
	"Rue du Moulin", "Rue du Pont", "Schoolstraat", "Stationsstraat", "Veldstraat", "Vijverlaan", "Weidestraat", "Zandweg",
}

var trades = []string{
	"Bakery", "Bricks", "Care", "Catering", "Chemicals", "Cleaning", "Construction", "Consulting", "Foods", "Hotels", "Insurance",
	"Logistics", "Metals", "Nurseries", "Printing", "Retail", "Schools", "Software", "Textiles", "Transport",
}

var activities = []string{"baker", "bookkeeper", "carpenter", "designer", "electrician", "farmer", "hairdresser", "physiotherapist", "shopkeeper", "translator"}

var nationalities = []string{"BE", "BE", "BE", "BE", "BE", "BE", "BE", "BE", "FR", "NL", "IT", "MA", "RO", "PL", "PT", "TR"}
