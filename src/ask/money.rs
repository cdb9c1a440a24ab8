//! Amounts of money.

use super::tokens::{Kind, Token};
use serde_json::Number;

/// Most digits of an amount: a double, which readers of JSON use, holds each decimal number of so many digits apart from the others.
const DIGITS_MAX: usize = 15;

/// Codes of ISO 4217 and what people say for them. Not all codes: `ALL` and `TRY` are words.
static CURRENCIES: [(&str, &[&str]); 21] = [
    ("EUR", &["eur", "€", "euro", "euros"]),
    ("USD", &["usd", "$", "us$", "dollar", "dollars"]),
    ("GBP", &["gbp", "£", "pound", "pounds"]),
    ("CHF", &["chf", "franken"]),
    ("JPY", &["jpy", "yen"]),
    ("CNY", &["cny"]),
    ("CAD", &["cad"]),
    ("AUD", &["aud"]),
    ("NZD", &["nzd"]),
    ("SEK", &["sek"]),
    ("NOK", &["nok"]),
    ("DKK", &["dkk"]),
    ("PLN", &["pln"]),
    ("CZK", &["czk"]),
    ("HUF", &["huf"]),
    ("INR", &["inr"]),
    ("SGD", &["sgd"]),
    ("HKD", &["hkd"]),
    ("BRL", &["brl"]),
    ("KRW", &["krw"]),
    ("ZAR", &["zar"]),
];

/// What money is at a place.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Money {
    /// An amount.
    Amount(Number, &'static str),
    /// Something that different people read as different amounts.
    Unclear,
}

/// The money at `at`, and how many tokens it has. A number without a currency is none.
pub(super) fn money(tokens: &[Token], at: usize) -> Option<(usize, Money)> {
    let token = tokens.get(at).filter(|token| matches!(token.kind, Kind::Word | Kind::Code))?;
    let after = tokens.get(at + 1).filter(|token| matches!(token.kind, Kind::Word | Kind::Code) && !token.glued);
    if let (Some(currency), Some(after)) = (currency(&token.text), after)
        && is_number(&after.text)
    {
        return Some((2, read(&after.text, currency)));
    }
    let (before, number, behind) = parts(&token.text)?;
    let next = after.and_then(|after| currency(&after.text));
    let mut named = [before, behind].into_iter().filter(|part| !part.is_empty());
    match (named.next(), named.next()) {
        (None, _) => next.map(|next| (2, read(number, next))),
        (Some(one), None) => {
            let one = currency(one)?;
            match next {
                Some(next) if next == one => Some((2, read(number, one))),
                Some(_) => Some((2, Money::Unclear)),
                None => Some((1, read(number, one))),
            }
        }
        (Some(_), Some(_)) => None,
    }
}

fn currency(text: &str) -> Option<&'static str> {
    CURRENCIES.iter().find(|(_, words)| words.contains(&text)).map(|(code, _)| *code)
}

fn is_number(text: &str) -> bool {
    parts(text).is_some_and(|(before, _, behind)| before.is_empty() && behind.is_empty())
}

/// `text` as what is before, in and behind its number, which is all from the first to the last digit.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let first = text.find(|c: char| c.is_ascii_digit())?;
    let last = text.rfind(|c: char| c.is_ascii_digit())?;
    let number = text.get(first..=last)?;
    let plain = number.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b','));
    plain.then_some((text.get(..first)?, number, text.get(last + 1..)?))
}

/// Reads `1000`, `1,000`, `1,000.50` and `1000.5`. A point before three digits and a comma before any other number of them are read
/// differently in different countries.
fn read(number: &str, currency: &'static str) -> Money {
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(whole, fraction)| (whole, Some(fraction)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default();
    let grouped = whole.contains(',');
    let whole_ok = digits(first)
        && (first == "0" || !first.starts_with('0'))
        && (!grouped || (first.len() <= 3 && first != "0" && groups.all(|group| group.len() == 3 && digits(group))));
    let fraction_ok = fraction.is_none_or(|fraction| digits(fraction) && fraction.len() <= 2);
    let fraction = fraction.unwrap_or_default().trim_end_matches('0');
    let whole: String = whole.split(',').collect();
    if !whole_ok || !fraction_ok || whole.len() + fraction.len() > DIGITS_MAX {
        return Money::Unclear;
    }
    let number = if fraction.is_empty() {
        whole.parse::<u64>().ok().map(Number::from)
    } else {
        format!("{whole}.{fraction}").parse::<f64>().ok().and_then(Number::from_f64)
    };
    number.map_or(Money::Unclear, |number| Money::Amount(number, currency))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::tokens::tokenize;
    use serde_json::json;

    fn of(text: &str) -> Option<(usize, Money)> {
        money(&tokenize(text), 0)
    }

    #[test]
    fn an_amount_has_a_currency_and_one_value() {
        for (text, length, amount, currency) in [
            ("500 EUR", 2, json!(500), "EUR"),
            ("€500", 1, json!(500), "EUR"),
            ("500€", 1, json!(500), "EUR"),
            ("EUR 1,000.50", 2, json!(1000.5), "EUR"),
            ("$20", 1, json!(20), "USD"),
            ("5 dollars", 2, json!(5), "USD"),
            ("$500 USD", 2, json!(500), "USD"),
            ("£0.99", 1, json!(0.99), "GBP"),
            ("1,000,000 CHF", 2, json!(1_000_000), "CHF"),
            ("12.00 eur", 2, json!(12), "EUR"),
        ] {
            let Some((n, Money::Amount(value, code))) = of(text) else { panic!("{text}") };
            assert_eq!((n, json!(value), code), (length, amount, currency), "{text}");
        }
    }

    #[test]
    fn a_number_that_can_be_read_in_two_ways_is_not_read() {
        for text in
            ["1.000 EUR", "1,50 EUR", "EUR 1.000,50", "1,00,000 EUR", "0500 EUR", "9999999999999999 EUR", "$500 CAD", "0,500 EUR"]
        {
            assert_eq!(of(text).map(|(_, money)| money), Some(Money::Unclear), "{text}");
        }
        for text in ["500", "EUR", "-500 EUR", "5 million", "500 all", "€", "1e3 EUR", "500k EUR", "A$20"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
