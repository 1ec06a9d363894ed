"""First names for the subscribers of the demo shop, from many languages; all are generated."""

import unicodedata
from typing import Final

_LIST: Final = """
Aaliyah Abigail Adam Adèle Agnieszka Ahmed Aiko Aino Alejandro Alice Amara Amélie Ana Anders
André Anjali Anna Anton Antônio Aoife Arjun Astrid Aurélie Ava Ayşe Babajide Beatriz Benjamin
Birgit Björn Blessing Bogdan Brandon Bronisław Camille Carlos Carmen Caroline Catarina Cécile
Charlotte Chiara Chidi Chloé Christopher Ciarán Claire Clément Cristián Daisuke Daniel Daniela
David Deborah Dilnoza Dmitri Dragan Eduardo Eilidh Elena Elías Elif Élodie Emily Emma Emre
Enrique Erik Esperanza Esther Étienne Eva Fabián Fátima Fernanda Finn Francesca François Freya
Gabriel Gaël Gemma George Giulia Goran Grace Greta Guadalupe Gülşen Gustavo Hannah Hana Harper
Héctor Helena Henrik Hiroshi Hugo Ibrahim Ichiro Ikram Ilse Imani Inés Ingrid Isabel Isla Ivan
Jacqueline Jakub James Jan Jasmine Javier Jean Jelena Jérôme Jessica Jiří Joanna João John
Jonas José Juliette Jürgen Kamala Karin Kateřina Kenji Kevin Khadija Kofi Krzysztof Kwame
Lars Laura Leila Léo Liam Linda Ling Lorenzo Lucía Luis Łukasz Magnus Maja Malik Manon Marco
Margaret María Marie Marijana Markéta Martín Mary Mateo Maya Mei Mercedes Michael Miguel Mikołaj
Mila Minh Miriam Mohamed Mónica Nadia Naoko Natalia Ngozi Nguyễn Nia Nicolás Niels Noah Noémie
Nora Olga Oliver Olivia Omar Oskar Øyvind Pablo Paolo Patricia Paulo Pedro Peter Petra Philippe
Priya Quentin Rachel Raúl Rebecca Renée Robert Rosa Ruth Ryan Sakura Samuel Sandra Santiago
Sébastien Selma Siobhán Sofía Søren Sophie Stefan Susan Svetlana Tadeusz Takumi Tamar Tatiana
Teresa Thabo Thérèse Thomas Tomáš Uchenna Ulrike Valentina Václav Vera Víctor Vikram Violeta
Wanjiru Wei William Xiomara Ximena Yasmin Yuki Yusuf Zainab Zoë Željko Zuzana Åsa Émile Ömer
Γιώργος Ελένη Ольга Сергей דוד מרים أحمد ليلى 美咲 健太 王芳 李伟 지민 서연 प्रिया राहुल
"""
FIRST_NAMES: Final = tuple(_LIST.split())
# Letters that no decomposition makes ASCII.
_FOLDED: Final = str.maketrans({"ł": "l", "ø": "o", "ı": "i", "đ": "d", "ß": "ss", "æ": "ae"})


def mailbox_of(first_name: str, user_id: str) -> str:
    """An address under a domain that never receives (RFC 2606), from the name's ASCII letters."""
    letters = unicodedata.normalize("NFKD", first_name.lower().translate(_FOLDED))
    name = "".join(letter for letter in letters if letter.isascii() and letter.isalpha())
    return f"{name or 'household'}.{user_id}@example.com"
