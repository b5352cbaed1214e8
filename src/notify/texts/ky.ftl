# What a receipt says, in Kyrgyz. Amounts, dates and codes arrive formatted.

subject = Төлөм дүмүрчөгү № { $number }: { $service }, { $amount }
title = Төлөм дүмүрчөгү
paid = Төлөндү
intro = Төлөмүңүз кабыл алынды. Бул дүмүрчөктү сактап коюңуз.
amount = { $amount } { $currency }
currency-kgs = сом

label-number = Дүмүрчөктүн номери
label-paid-at = Күнү жана убактысы
label-service = Кызмат
label-bill = Төлөм коду
label-applicant = Арыз берүүчү
label-amount = Суммасы
label-card = Карта
label-authorization = Авторизация коду
label-rrn = Банктагы операциянын номери (RRN)
label-payment = Төлөмдүн идентификатору

service-passport = Паспорт
service-driving-licence = Айдоочулук күбөлүк
service-meken-card = «Мекен» картасы
service-other = Мамлекеттик кызмат

brand-visa = Visa
brand-mastercard = Mastercard
brand-mir = Мир
brand-unionpay = UnionPay
brand-elcart = Элкарт
brand-other = Банк картасы

online = Дүмүрчөктү сайттан ачуу
questions = Суроолоруңуз болсо: { $operator }, тел. { $phone }, { $email }
not-yours = Эгер бул төлөмдү сиз жасабаган болсоңуз, дароо банкыңызга жана бизге кабарлаңыз.
