package canon

// bestFits lists, by the ASCII character that it becomes, what Windows' best fit
// to code page 1252 makes ASCII of (unicode.org, Public/MAPPINGS/VENDORS/MICSFT,
// WindowsBestFit/bestfit1252.txt), but for the fullwidth forms, U+FF01 to U+FF5E,
// which become U+0021 to U+007E.
var bestFits = map[rune]string{
	' ':  "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u3000",
	'!':  "ǃ",
	'"':  "ʺ\u030e",
	'%':  "٪",
	'\'': "ʹʼˈ′",
	'(':  "⌠",
	')':  "⌡",
	'*':  "∗",
	'+':  "┌┐└┘├┼╒╓╔╕╖╗╘╙╚╛╜╝╪╫╬",
	'-':  "‐\u2011−─┬┴═╤╥╦╧╨╩",
	'/':  "⁄∕",
	'0':  "₀",
	'1':  "₁",
	'2':  "₂",
	'3':  "₃",
	'4':  "⁴₄",
	'5':  "⁵₅",
	'6':  "⁶₆",
	'7':  "⁷₇",
	'8':  "⁸₈∞",
	'9':  "₉",
	':':  "։∶",
	';':  "\u037e",
	'<':  "\u2329〈",
	'=':  "‗≡≤≥",
	'>':  "\u232a〉",
	'A':  "ĀĂĄǍǞ",
	'B':  "ℬ",
	'C':  "ĆĈĊČℂℭ",
	'D':  "Ď",
	'E':  "ĒĔĖĘĚℇℰ",
	'F':  "Φℱ",
	'G':  "ĜĞĠĢǤǦΓ",
	'H':  "ĤĦℋℌℍ",
	'I':  "ĨĪĬĮİƗǏℐℑ",
	'J':  "Ĵ",
	'K':  "ĶǨ\u212a",
	'L':  "ĹĻĽŁℒ",
	'M':  "ℳ",
	'N':  "ŃŅŇℕ",
	'O':  "ŌŎŐƟƠǑǪǬΩ",
	'P':  "₧℘ℙ",
	'Q':  "ℚ",
	'R':  "ŔŖŘℛℜℝ",
	'S':  "ŚŜŞΣ",
	'T':  "ŢŤŦƮΘ",
	'U':  "ŨŪŬŮŰŲƯǓǕǗǙǛ",
	'W':  "Ŵ",
	'Y':  "Ŷ",
	'Z':  "ŹŻℤℨ",
	'[':  "〚",
	'\\': "∖",
	']':  "〛",
	'^':  "˄\u0302⌃",
	'_':  "ˍ\u0331\u0332▄",
	'`':  "ˋ\u0300‵",
	'a':  "āăąǎǟα",
	'b':  "ƀ",
	'c':  "ćĉċč",
	'd':  "ďđδ",
	'e':  "ēĕėęěε℮ℯ",
	'f':  "φ",
	'g':  "ĝğġģǥǧɡℊ",
	'h':  "ĥħһℎ",
	'i':  "ĩīĭįıǐ",
	'j':  "ĵǰ",
	'k':  "ķǩ",
	'l':  "ĺļľłƚℓ",
	'n':  "ńņňⁿ∩",
	'o':  "ōŏőơǒǫǭℴ",
	'p':  "π",
	'r':  "ŕŗř",
	's':  "śŝşσ",
	't':  "ţťŧƫτ",
	'u':  "ũūŭůűųưǔǖǘǚǜ",
	'v':  "√",
	'w':  "ŵ",
	'y':  "ŷ",
	'z':  "źżƶ",
	'|':  "ǀ∣❘",
	'~':  "\u0303∼",
}

// fitted is what best fit makes of a character.
var fitted = func() func(rune) rune {
	table := make(map[rune]rune)
	for to, all := range bestFits {
		for _, from := range all {
			table[from] = to
		}
	}
	for r := rune(0xFF01); r <= 0xFF5E; r++ {
		table[r] = r - 0xFEE0
	}
	return func(r rune) rune {
		if to, ok := table[r]; ok {
			return to
		}
		return r
	}
}()
